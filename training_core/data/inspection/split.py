"""Splits that the dataset does not bring, made from its training images: stratified, by groups, seeded.

Images that belong together never part: copies of one image, exact or near, and images of one group (`split.group_by`).
"""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from training_core.contract.spec import Split
from training_core.data.inspection.duplicates import components, first_of
from training_core.data.items import Items
from training_core.data.samples import SPLITS

Rows = NDArray[np.int64]


def make_splits(items: Items, kept: NDArray[np.bool_], split: Split) -> tuple[dict[str, Rows], list[str]]:
    """Rows, rising, by split, and the names of those that were made. Fractions are of the training images given."""
    given = np.maximum(items.column("split"), 0)
    rows = {name: np.flatnonzero(kept & (given == index)) for index, name in enumerate(SPLITS)}
    missing = {"test": split.test, "validation": split.validation}
    made = [name for name, fraction in missing.items() if not np.any(given == SPLITS.index(name)) and fraction > 0]
    if made and len(rows["train"]):
        label, unit = items.column("label"), units_of(items)
        whole = rows["train"]
        for name in made:
            train = rows["train"]
            strata = label[train] if split.stratify else np.zeros(len(train), np.int64)
            wanted = _wanted(label[whole] if split.stratify else np.zeros(len(whole), np.int64), missing[name])
            random = np.random.default_rng([split.seed, SPLITS.index(name)])
            taken = _take(unit[train], strata, wanted, random)
            rows[name], rows["train"] = train[taken], train[~taken]
    return rows, made


def units_of(items: Items) -> NDArray[np.int32]:
    """A number for each row, the same for rows that must stay together."""
    return components(len(items), (_with_first(items, column) for column in ("exact_group", "near_group", "group")))


def _with_first(items: Items, column: str) -> Rows:
    """Each row of a group, with the first row of its group."""
    group = items.column(column)
    rows = np.flatnonzero(group != -1)
    return np.stack([rows, rows[first_of(group[rows])]])


def _wanted(strata: NDArray[np.int64], fraction: float) -> Counter[int]:
    """Images to take of each stratum: at least one where it has two, and never all."""
    return Counter({s: min(max(1, round(count * fraction)), count - 1) for s, count in _count(strata).items()})


def _take(
    unit: NDArray[np.integer], strata: NDArray[np.int64], wanted: Counter[int], random: np.random.Generator
) -> NDArray[np.bool_]:
    """Which rows to take: whole units, so that each stratum comes as close to what is wanted as it can.

    Units of several images are drawn first, up to their share, then single images; what single images could not fill
    is filled by more of the larger units, and a stratum that got nothing takes the smallest unit it has.
    """
    _, number, size = np.unique(unit, return_inverse=True, return_counts=True)
    alone = size[number] == 1
    large = _large_units(number, ~alone, random)
    draw = _Draw(strata, wanted)
    in_large = _count(strata[~alone])
    draw.take_units(large, Counter({s: round(wanted[s] * in_large[s] / draw.left[s]) for s in wanted}))
    order = random.permutation(np.flatnonzero(alone))
    order = order[np.argsort(strata[order], kind="stable")]
    draw.take_single(order)
    draw.take_units(large, draw.wanted)
    for rows in sorted(large, key=len):
        if any(draw.untouched(stratum) for stratum in set(strata[rows].tolist())):
            draw.take_units([rows], Counter(dict.fromkeys(wanted, len(rows))))
    return draw.taken


class _Draw:
    """What is taken so far, what of each stratum is still `wanted`, and what is `left` of it to train on."""

    def __init__(self, strata: NDArray[np.int64], wanted: Counter[int]) -> None:
        self.strata = strata
        self.taken = np.zeros(len(strata), np.bool_)
        self.wanted = wanted
        self.left = _count(strata)
        self._whole = self.left.copy()

    def untouched(self, stratum: int) -> bool:
        return self.wanted[stratum] > 0 and self.left[stratum] == self._whole[stratum]

    def take_units(self, units: list[Rows], wanted: Counter[int]) -> None:
        """Each unit that brings its strata closer to `wanted` and leaves all of them something."""
        wanted = wanted.copy()
        for rows in units:
            if self.taken[rows[0]]:
                continue
            counts = _count(self.strata[rows])
            gain = sum(abs(wanted[s]) - abs(wanted[s] - count) for s, count in counts.items())
            if gain > 0 and all(self.left[s] > count for s, count in counts.items()):
                wanted.subtract(counts)
                self._book(rows, counts)

    def take_single(self, order: Rows) -> None:
        """Of images sorted by stratum, the first of each stratum, as many as are still wanted."""
        values, starts = np.unique(self.strata[order], return_index=True)
        for stratum, start, end in zip(values.tolist(), starts, [*starts, len(order)][1:], strict=True):
            count = max(0, min(self.wanted[stratum], self.left[stratum] - 1))
            self._book(order[start:end][:count], Counter({stratum: min(count, end - start)}))

    def _book(self, rows: Rows, counts: Counter[int]) -> None:
        self.taken[rows] = True
        for stratum, count in counts.items():
            self.wanted[stratum] -= count
            self.left[stratum] -= count


def _count(strata: NDArray[np.int64]) -> Counter[int]:
    if len(strata) < 100:
        return Counter(strata.tolist())
    counts = np.bincount(strata)
    return Counter({int(stratum): int(counts[stratum]) for stratum in np.flatnonzero(counts)})


def _large_units(number: Rows, large: NDArray[np.bool_], random: np.random.Generator) -> list[Rows]:
    rows = np.flatnonzero(large)
    if not len(rows):
        return []
    rows = rows[np.argsort(number[rows], kind="stable")]
    units = np.split(rows, np.flatnonzero(np.diff(number[rows])) + 1)
    return [units[index] for index in random.permutation(len(units))]
