"""Groups of copies: exact ones by their hashes, near ones by perceptual hashes (`near_copies`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training_core.data.inspection.near_copies import near_pairs

COLUMNS = ("content", "pixels", "phash", "fine_0", "fine_1", "fine_2", "fine_3", "information", "width", "height")
LEAST_INFORMATION = 1.5  # bits a pixel; a flatter image has no structure that a hash could describe

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Groups:
    """The row of the first member of each row's group, -1 for a row alone.

    A near group holds the exact copies of its members; a group of exact copies alone is no near group.
    """

    exact: NDArray[np.int32]
    near: NDArray[np.int32]


def group(columns: Mapping[str, NDArray[Any]]) -> Groups:
    """Groups of the rows of COLUMNS, all of one length. Takes about 60 bytes a row beside the columns themselves."""
    exact = _exact(columns)
    first = exact == np.arange(len(exact), dtype=np.int32)
    searched = np.flatnonzero(first & (columns["information"] >= LEAST_INFORMATION)).astype(np.int32)
    leader = components(len(exact), near_pairs(columns, searched))[exact]
    members = np.bincount(leader[first], minlength=len(exact))
    near = np.where(members[leader] > 1, leader, np.int32(-1))
    copies = np.bincount(exact, minlength=len(exact))[exact] > 1
    return Groups(np.where(copies, exact, np.int32(-1)), near)


def first_of(keys: NDArray[Any]) -> Rows:
    """For each key, the first position that holds it."""
    order = np.argsort(keys, kind="stable")
    begins = np.ones(len(keys), np.bool_)
    begins[1:] = keys[order[1:]] != keys[order[:-1]]
    starts = np.maximum.accumulate(np.where(begins, np.arange(len(keys)), 0))
    first = np.empty(len(keys), np.int64)
    first[order] = order[starts]
    return first


def components(count: int, pairs: Iterable[NDArray[np.integer]]) -> NDArray[np.int32]:
    """The smallest row that each row is connected to by pairs `(2, n)`; they are taken batch by batch and not kept.

    Hooking and pointer jumping (Shiloach & Vishkin 1982).
    """
    leader = np.arange(count, dtype=np.int32)
    for one, other in pairs:
        _connect(leader, one, other)
    return _roots(leader, np.arange(count, dtype=np.int32))


def _connect(leader: NDArray[np.int32], one: NDArray[np.integer], other: NDArray[np.integer]) -> None:
    left, right = _roots(leader, one), _roots(leader, other)
    while (apart := left != right).any():
        left, right = left[apart], right[apart]
        np.minimum.at(leader, np.maximum(left, right), np.minimum(left, right))
        left, right = _roots(leader, left), _roots(leader, right)


def _roots(leader: NDArray[np.int32], rows: NDArray[np.integer]) -> NDArray[np.int32]:
    """Who leads each of `rows` in the end. Each round halves the way there, and leaves it halved."""
    root: NDArray[np.int32] = leader[rows]
    while not np.array_equal(above := leader[root], root):
        leader[rows] = root = above
    return root


def _exact(columns: Mapping[str, NDArray[Any]]) -> NDArray[np.int32]:
    """The first row with the same file, or with the same pixels at the same original size."""
    count = len(columns["pixels"])
    size = columns["width"].astype(np.uint64) << np.uint64(32) | columns["height"].astype(np.uint64)
    return components(
        count,
        (
            _copies(columns["pixels"] ^ (size * np.uint64(0x9E37_79B9_7F4A_7C15)), np.arange(count)),
            _copies(columns["content"], np.flatnonzero(columns["content"])),
        ),
    )


def _copies(keys: NDArray[Any], rows: Rows) -> Rows:
    first = rows[first_of(keys[rows])]
    later = first != rows
    return np.stack([rows[later], first[later]])
