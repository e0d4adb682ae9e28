"""Folds for out-of-fold predictions: every class spread evenly, and what belongs together in one fold. Torch-free."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FOLD_STREAM = 5


def assign_folds(labels: NDArray[np.integer], units: NDArray[np.integer], folds: int, seed: int) -> NDArray[np.int64]:
    """`(images,)` fold numbers below `folds`.

    Images of one unit (copies of each other, one patient) share a fold: a model that trained on a copy would only
    repeat the label it was taught. A unit counts for the class of its first image.
    """
    random = np.random.default_rng([seed, FOLD_STREAM])
    _, first, unit = np.unique(units, return_index=True, return_inverse=True)
    shuffled = random.permutation(len(first))
    by_class = shuffled[np.argsort(labels[first[shuffled]], kind="stable")]
    # Dealt like cards, class after class: each fold gets its share of every class.
    fold_of_unit = np.empty(len(first), np.int64)
    fold_of_unit[by_class] = np.arange(len(first)) % folds
    fold: NDArray[np.int64] = fold_of_unit[unit]
    return fold
