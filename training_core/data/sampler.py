"""Which images make an epoch, in which order and in which batch: pure functions of seed, epoch and position.

A draw is a row with the number of times it was drawn before in the same epoch: `row + copy * COPY`. Random numbers of
augmentation follow from the draw, so that an image drawn twice is not the same picture twice. Torch-free.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from training_core.contract.errors import Failed, Reason
from training_core.contract.spec import Sampling
from training_core.data.buckets import Shape, Shapes
from training_core.data.items import Items

Indices = NDArray[np.int64]
COPY = 2**40

# Streams of random numbers that never meet.
ORDER_STREAM, DRAW_STREAM, BATCH_STREAM, PART_STREAM = 2, 3, 4, 5
# What pacing begins with: the easiest fifth of each class.
FIRST_FRACTION = 0.2


class Part(NamedTuple):
    """What one batch is made of: draws, and the `(height, width)` that its images get."""

    epoch: int
    draws: Indices
    shape: Shape


@dataclass(frozen=True)
class Columns:
    """What sampling needs to know of the training rows, each `(rows,)`; None where nobody asks for it."""

    labels: NDArray[np.int64] | None = None
    weights: NDArray[np.float64] | None = None
    difficulty: NDArray[np.float64] | None = None
    shapes: Shapes | None = None


def read_columns(items: Items, rows: Indices, sampling: Sampling, shapes: Shapes | None = None) -> Columns:
    """The columns that `sampling` uses.

    Raises `Failed(unsupported)` where the dataset has no such column, `Failed(dataset_invalid)` where it is no use.
    """
    labels = weights = difficulty = None
    if sampling.balance == "classes" or sampling.pacing != "none":
        labels = items.column("label")[rows].astype(np.int64)
    if sampling.balance == "weights":
        weights = _checked(
            items, rows, "weight", "training.sampling.balance is weights", "name it in dataset.columns.weight"
        )
    if sampling.pacing != "none":
        difficulty = _checked(
            items,
            rows,
            "difficulty",
            f"training.sampling.pacing is {sampling.pacing}",
            "name it in dataset.columns.difficulty, measured by a job with dataset.label_check, or set pacing to none",
        )
    return Columns(labels, weights, difficulty, shapes)


def check_sampling(folder: Path, selection: Path, sampling: Sampling) -> None:
    """Raises what `read_columns` would, before any device is held."""
    if sampling.balance == "weights" or sampling.pacing != "none":
        with np.load(selection, allow_pickle=False) as splits:
            read_columns(Items(folder), splits["train"], sampling)


def _checked(items: Items, rows: Indices, name: str, why: str, way_out: str) -> NDArray[np.float64]:
    values: NDArray[np.float64] = items.column(name)[rows].astype(np.float64)
    if np.isnan(values).all():
        raise Failed(Reason.UNSUPPORTED, f"{why}, and the dataset has no column of {name}", way_out)
    bad = ~np.isfinite(values) | (values < 0 if name == "weight" else False)
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        path = items.paths(rows[first : first + 1])[0]
        raise Failed(
            Reason.DATASET_INVALID,
            f"the {name} of {path} is {'missing' if np.isnan(values[first]) else values[first]}, "
            f"and so {int(bad.sum())} of {len(rows)} training images cannot be used",
            f"give each image a finite {name}" + (", zero or more" if name == "weight" else ""),
        )
    if name == "weight" and values.sum() <= 0:
        raise Failed(Reason.DATASET_INVALID, "all weights are zero", "give some images a weight above zero")
    return values


class Sampler:
    """The epochs of a training: always as many draws as there are rows, whatever the way of sampling.

    Pacing is off by default because it helps only short budgets and noisy labels (Wu, Dyer & Neyshabur 2021): elsewhere
    it shows the network fewer different images. Linear pacing by class: the easiest fifth first, all after
    `pacing_epochs` of the epochs.
    """

    def __init__(self, rows: Indices, sampling: Sampling, columns: Columns, *, seed: int, epochs: int) -> None:
        self._rows, self._columns, self._seed = rows, columns, seed
        self._balance = sampling.balance
        self._easy_first = sampling.pacing != "none"
        self._paced_epochs = sampling.pacing_epochs * epochs
        self._ease = _rank_in_class(columns) if self._easy_first else None

    def order(self, epoch: int) -> Indices:
        """`(rows,)` draws."""
        random = np.random.default_rng([self._seed, ORDER_STREAM, epoch])
        if self._balance == "none" and not self._easy_first:
            return random.permutation(self._rows)
        positions = random.permutation(self._draw(self._pool(epoch), epoch))
        draws: Indices = self._rows[positions % COPY] + positions // COPY * COPY
        return draws

    def batches(self, batch_size: int, shape: Shape, step: int = 0) -> Iterator[Part]:
        """Every global batch from `step` on, without an end; the draws that fill no batch wait an epoch."""
        steps = len(self._rows) // batch_size
        epoch, first = divmod(step, steps)
        while True:
            parts = self._parts(self.order(epoch)[: steps * batch_size], epoch, batch_size, shape)
            for number in range(first, steps):
                yield parts(number)
            epoch, first = epoch + 1, 0

    def _parts(self, order: Indices, epoch: int, size: int, shape: Shape) -> Callable[[int], Part]:
        shapes = self._columns.shapes
        if shapes is None:
            return lambda number: Part(epoch, order[number * size : (number + 1) * size], shape)
        order = order[np.argsort(shapes.bucket_of(order % COPY), kind="stable")]
        batches = np.random.default_rng([self._seed, BATCH_STREAM, epoch]).permutation(len(order) // size)

        def part(number: int) -> Part:
            start = int(batches[number]) * size
            draws = order[start : start + size]
            return Part(epoch, draws, shapes.shape_of(int(draws[size // 2] % COPY)))

        return part

    def _pool(self, epoch: int) -> Indices:
        """Positions in `rows` that this epoch may draw."""
        if self._ease is None:
            return np.arange(len(self._rows))
        reached = min(1.0, (epoch + 1) / self._paced_epochs)
        return np.flatnonzero(self._ease <= FIRST_FRACTION + (1 - FIRST_FRACTION) * reached)

    def _draw(self, pool: Indices, epoch: int) -> Indices:
        random = np.random.default_rng([self._seed, DRAW_STREAM, epoch])
        count = len(self._rows)
        if self._balance == "classes" and self._columns.labels is not None:
            return _draw_by_class(random, pool, self._columns.labels[pool], count)
        # The easy images of an early epoch may all weigh nothing.
        if self._balance == "weights" and self._columns.weights is not None and self._columns.weights[pool].any():
            return _draw_by_weight(random, pool, self._columns.weights[pool], count)
        return _draw_evenly(random, pool, count)


def _rank_in_class(columns: Columns) -> NDArray[np.float64]:
    """How much of its class is as easy as an image or easier, in (0, 1]; so no class is left out of an epoch."""
    labels, difficulty = columns.labels, columns.difficulty
    assert labels is not None and difficulty is not None  # noqa: S101, PT018  read_columns gave them
    order = np.lexsort((difficulty, labels))
    sizes = np.bincount(labels)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    ranks = np.empty(len(labels))
    ranks[order] = (np.arange(len(labels)) - starts[labels[order]]) / sizes[labels[order]]
    return ranks


def _draw_evenly(random: np.random.Generator, pool: Indices, count: int) -> Indices:
    """`count` draws in which no position comes twice more often than another."""
    rounds, rest = divmod(count, len(pool))
    whole = [pool + copy * COPY for copy in range(rounds)]
    return np.concatenate([*whole, random.permutation(pool)[:rest] + rounds * COPY])


def _draw_by_class(random: np.random.Generator, pool: Indices, labels: Indices, count: int) -> Indices:
    """Each class equally often, each image of a class equally often; what does not divide falls to chance."""
    order = np.argsort(labels, kind="stable")
    classes, starts = np.unique(labels[order], return_index=True)
    members = np.split(pool[order], starts[1:])
    shares = np.full(len(classes), count // len(classes))
    shares[random.permutation(len(classes))[: count % len(classes)]] += 1
    return np.concatenate([_draw_evenly(random, one, int(share)) for one, share in zip(members, shares, strict=True)])


def _draw_by_weight(random: np.random.Generator, pool: Indices, weights: NDArray[np.float64], count: int) -> Indices:
    """Systematic resampling (Kitagawa 1996): each image as often as its weight says, rounded up or down by chance."""
    shuffled = random.permutation(len(pool))
    reached = np.cumsum(weights[shuffled])
    points = (np.arange(count) + random.random()) * (reached[-1] / count)
    chosen = np.minimum(np.searchsorted(reached, points, side="right"), np.flatnonzero(weights[shuffled])[-1])
    copies = np.arange(count) - np.searchsorted(chosen, chosen, side="left")
    drawn: Indices = pool[shuffled[chosen]] + copies * COPY
    return drawn


def share(draws: Indices, rank: int, world_size: int) -> Indices:
    """The part of a global batch that one rank takes; the parts of all ranks are the batch."""
    return draws[rank::world_size]


def first_of_order(rows: Indices, count: int, seed: int) -> Indices:
    """The first `count` of `rows` in a random order that `seed` fixes: the same ones and more for a higher count.

    Given back as they lie in the pack.
    """
    return np.sort(np.random.default_rng([seed, PART_STREAM]).permutation(rows)[:count])


def evaluation_parts(rows: Indices, size: int, shape: Shape) -> Iterator[Part]:
    """Batches, the last one short, in which each row of a rank's share comes once."""
    for start in range(0, len(rows), size):
        yield Part(0, rows[start : start + size], shape)
