"""Which images are in which split, in which order, and in which batch: pure functions of seed, epoch and position."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training_core.data.layout import SPLITS
from training_core.failure import Failed
from training_core.spec import JobSpec
from training_core.wire import Reason

Indices = NDArray[np.int64]

# Streams of random numbers that never meet.
SPLIT_STREAM, ORDER_STREAM = 1, 2


def split_indices(folder: Path, spec: JobSpec) -> dict[str, Indices]:
    """Indices into the prepared arrays by split. Given splits stay; missing ones are taken from the training images.

    Raises `Failed(dataset_invalid)` when nothing is left to train or to validate on.
    """
    labels = np.load(folder / "labels.npy", allow_pickle=False)
    given = np.load(folder / "splits.npy", allow_pickle=False)
    splits: dict[str, Indices] = {name: np.flatnonzero(given == index) for index, name in enumerate(SPLITS)}
    fractions = {"test": spec.dataset.split.test, "validation": spec.dataset.split.validation}
    left = 1.0
    for stream, (name, fraction) in enumerate(fractions.items()):
        if len(splits[name]) == 0 and fraction > 0:
            seed = [spec.training.seed, SPLIT_STREAM, stream]
            splits[name], splits["train"] = _take(splits["train"], labels, fraction / left, seed)
            left -= fraction
    for name in ("train", "validation"):
        if len(splits[name]) == 0:
            raise Failed(Reason.DATASET_INVALID, f"the dataset is too small: no image is left for {name}", "add images")
    return splits


def _take(pool: Indices, labels: Indices, fraction: float, seed: list[int]) -> tuple[Indices, Indices]:
    """`fraction` of each class, at least one image of each class that has two, and the rest; both sorted."""
    random = np.random.default_rng(seed)
    taken = []
    for label in np.unique(labels[pool]):
        members = random.permutation(pool[labels[pool] == label])
        count = min(max(1, round(len(members) * fraction)), len(members) - 1)
        taken.append(members[:count])
    chosen = np.sort(np.concatenate(taken)) if taken else pool[:0]
    return chosen, np.setdiff1d(pool, chosen)


def epoch_order(indices: Indices, seed: int, epoch: int) -> Indices:
    """The training images in the order of one epoch."""
    return np.random.default_rng([seed, ORDER_STREAM, epoch]).permutation(indices)


def share(batch: Indices, rank: int, world_size: int) -> Indices:
    """The part of a global batch that one rank takes; the parts of all ranks are the batch."""
    return batch[rank::world_size]
