"""Pairs of near copies: what hash distance means "the same picture", and how to find such pairs among millions.

How close is close depends on the data: among photographs of the world two unrelated hashes differ in half of their
bits, while shirts on a black ground are all alike. So the limit is taken from the dataset itself (a contrario:
Desolneux, Moisan & Morel 2000): so few bits that, by chance, one image in a thousand finds an unrelated one as close.

All pairs are compared while there are few images. Beyond that, as in multi-index hashing (Norouzi, Punjani & Fleet
2012), two hashes that differ in few bits agree completely in some of their parts: for every choice of parts the images
are sorted by those, and each is compared with the next few that agree. A hash that a hundred thousand images share
costs no more than any other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

FINE_BITS = (16, 84)  # the limit of 256 bits: always accepted, never exceeded
SHORT_BITS = 16  # of 64
ASPECT_OCTAVES = 0.25
SAMPLE = 2048
FALSE_PER_IMAGE = 1e-3
COMPARED_WITH_ALL = 16_384
BLOCK = 512
PARTS = 8
MANY = 1_000_000
NEIGHBOURS = 12
CHUNK = 1 << 18  # pairs

Rows = NDArray[np.int64]
Hashes = NDArray[np.uint64]


def near_pairs(columns: Mapping[str, NDArray[Any]], rows: NDArray[np.int32]) -> Iterator[NDArray[np.int32]]:
    """Pairs `(2, n)` of near copies among `rows`, in batches; of `phash`, `fine_0` to `fine_3`, `width`, `height`."""
    if len(rows) < 2:
        return
    fine = [columns[f"fine_{part}"] for part in range(4)]
    width, height = columns["width"], columns["height"]
    limit = fine_limit(fine, rows)
    short = columns["phash"][rows]
    for candidates in _candidates(short):
        near = np.bitwise_count(short[candidates[0]] ^ short[candidates[1]]) <= SHORT_BITS
        pairs = rows[candidates[:, near]]
        close = _distance(fine, pairs) <= limit
        close &= np.abs(np.diff(np.log2(width[pairs] / height[pairs]), axis=0)[0]) <= ASPECT_OCTAVES
        if close.any():
            yield pairs[:, close]


def fine_limit(fine: list[Hashes], rows: NDArray[np.int32]) -> int:
    """Bits of 256 that near copies may differ in.

    Two quantiles of the distances between images of a sample, low and yet so high that real copies hardly matter there,
    are continued down to FALSE_PER_IMAGE as a normal distribution.
    """
    count = len(rows)
    sample = rows[np.unique(np.linspace(0, count - 1, min(count, SAMPLE)).astype(np.int64))]
    some = [words[sample] for words in fine]
    distances = np.concatenate([_distances(some, place) for place in range(len(sample) - 1)])
    near, nearer = np.clip([30 / count, 5 / count], [1e-4, 1e-5], [0.2, 0.1])
    at_near, at_nearer = np.quantile(distances, [near, nearer])
    deviations = [-NormalDist().inv_cdf(share) for share in (near, nearer, 2 * FALSE_PER_IMAGE / count)]
    slope = (at_near - at_nearer) / (deviations[1] - deviations[0])
    return int(np.clip(at_nearer - slope * (deviations[2] - deviations[1]), *FINE_BITS))


def _candidates(short: Hashes) -> Iterator[Rows]:
    if len(short) <= COMPARED_WITH_ALL:
        yield from _all_pairs(short)
    else:
        for parts in combinations(range(PARTS), 2 if len(short) <= MANY else 3):
            yield from _agreeing(_first_bits(short, parts), 8 * len(parts))


def _all_pairs(short: Hashes) -> Iterator[Rows]:
    for start in range(0, len(short), BLOCK):
        close = np.bitwise_count(short[start : start + BLOCK, None] ^ short[None, start:]) <= SHORT_BITS
        one, other = np.nonzero(np.triu(close, 1))
        yield np.stack([one, other]) + start


def _agreeing(keys: Hashes, bits: int) -> Iterator[Rows]:
    """Positions whose keys agree in the first `bits`, each with those that follow it in the order of the whole keys."""
    order = np.argsort(keys, kind="stable")
    keys = keys[order] >> np.uint64(64 - bits)
    for step in range(1, NEIGHBOURS + 1):
        at = np.flatnonzero(keys[step:] == keys[:-step])
        for start in range(0, len(at), CHUNK):
            part = at[start : start + CHUNK]
            yield np.stack([order[part], order[part + step]])


def _first_bits(short: Hashes, parts: tuple[int, ...]) -> Hashes:
    """The hashes with these of their eight bytes in front and the others behind."""
    order = [*parts, *(part for part in range(PARTS) if part not in parts)]
    shuffled = short.astype(">u8").view(np.uint8).reshape(-1, PARTS)[:, order]
    return np.ascontiguousarray(shuffled).view(">u8").reshape(-1).astype(np.uint64)


def _distances(fine: list[Hashes], place: int) -> NDArray[np.uint16]:
    """From the hash at `place` to all behind it."""
    counts = [np.bitwise_count(words[place] ^ words[place + 1 :]).astype(np.uint16) for words in fine]
    return np.asarray(np.sum(counts, axis=0), np.uint16)


def _distance(fine: list[Hashes], pairs: NDArray[np.integer]) -> NDArray[np.uint16]:
    distance = np.zeros(pairs.shape[1], np.uint16)
    for words in fine:
        distance += np.bitwise_count(words[pairs[0]] ^ words[pairs[1]])
    return distance
