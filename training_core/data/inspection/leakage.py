"""What follows from copies: leakage between splits, contradicting labels, and duplicates within a split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training_core.data.inspection.duplicates import first_of
from training_core.data.inspection.findings import Look
from training_core.data.items import Items

Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Copies:
    """One value a row: index into SPLITS, label, and the groups of `duplicates.Groups`, -1 for a row alone."""

    split: NDArray[Any]
    label: NDArray[Any]
    exact: NDArray[Any]
    near: NDArray[Any]
    phash: NDArray[Any]

    @classmethod
    def of(cls, items: Items) -> Copies:
        column = items.column
        # Rows of a dataset that gives no split are training images until splits are made of them.
        split = np.maximum(column("split"), 0)
        return cls(split, column("label"), column("exact_group"), column("near_group"), column("phash"))


def conflicting_labels(copies: Copies, kept: Mask) -> Look:
    """All exact copies of an image that stands under more than one label."""
    rows = np.flatnonzero(kept & _contradicted(copies))
    of = _first(rows, [copies.exact[rows]])
    size = np.bincount(copies.exact[rows], minlength=1)[copies.exact[rows]]
    return Look(rows, size, np.full(len(rows), np.nan), "the same image under different labels", of)


def leakage(copies: Copies, kept: Mask) -> Look:
    """Training images with a copy in validation or test, and validation images with a copy in test."""
    of = np.full(len(kept), -1)
    for groups in (copies.near, copies.exact):  # exact last: where both hold, that is the better witness
        rows = np.flatnonzero(kept & (groups >= 0))
        later_first = rows[np.argsort(-copies.split[rows].astype(np.int64), kind="stable")]
        witness = _first(later_first, [groups[later_first]])
        leaking = copies.split[later_first] < copies.split[witness]
        of[later_first[leaking]] = witness[leaking]
    rows = np.flatnonzero(of >= 0)
    return _copies(copies, rows, of[rows], "an exact or near copy of an image of an evaluation split")


def exact_duplicates(copies: Copies, kept: Mask) -> Look:
    """Later copies of an image within a split; copies whose labels contradict each other are `conflicting_labels`."""
    rows = np.flatnonzero(kept & (copies.exact >= 0) & ~_contradicted(copies))
    of = _first(rows, [copies.exact[rows], copies.split[rows]])
    later = of != rows
    unknown = np.full(int(later.sum()), np.nan)
    return Look(rows[later], np.zeros_like(unknown), unknown, "the same file, or the same pixels", of[later])


def near_duplicates(copies: Copies, kept: Mask) -> Look:
    """Later near copies within a split and under the same label; exact copies are not counted again."""
    exact = exact_duplicates(copies, kept).rows
    rows = np.setdiff1d(np.flatnonzero(kept & (copies.near >= 0) & ~_contradicted(copies)), exact)
    of = _first(rows, [copies.near[rows], copies.split[rows], copies.label[rows]])
    later = of != rows
    return _copies(copies, rows[later], of[later], "perceptual hashes that differ in a few bits")


def _contradicted(copies: Copies) -> Mask:
    rows = np.flatnonzero(copies.exact >= 0)
    other = copies.label[rows] != copies.label[copies.exact[rows]]
    contradicted = np.zeros(len(copies.exact), np.bool_)
    contradicted[copies.exact[rows[other]]] = True
    mask: Mask = (copies.exact >= 0) & contradicted[copies.exact]
    return mask


def _first(rows: Rows, keys: list[NDArray[Any]]) -> Rows:
    """For each of `rows`, the first of them with the same keys."""
    same = np.zeros(len(rows), np.int64)
    for key in keys:
        _, numbers = np.unique(key, return_inverse=True)
        same = same * (int(numbers.max(initial=0)) + 1) + numbers
        _, same = np.unique(same, return_inverse=True)
    return rows[first_of(same)]


def _copies(copies: Copies, rows: Rows, of: Rows, threshold: str) -> Look:
    """The value is the number of different bits of the perceptual hash: the closest copies come first."""
    bits = np.bitwise_count(copies.phash[rows] ^ copies.phash[of]).astype(np.float64)
    return Look(rows, -bits, bits, threshold, of)


RULES = {
    "conflicting_labels": conflicting_labels,
    "leakage": leakage,
    "exact_duplicates": exact_duplicates,
    "near_duplicates": near_duplicates,
}
