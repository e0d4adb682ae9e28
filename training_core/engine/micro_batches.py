"""A rank's share of a batch in pieces that fit into its memory."""

from __future__ import annotations

import math
from collections.abc import Iterator

from training_core.engine.training import Training
from training_core.optimisation.layers import has_batch_norm
from training_core.vision.augment.mix import Mixed

# A batch norm over one value raises an error, and over few images it says little.
LEAST_FOR_BATCH_NORM = 2
MULTIPLE = 8


def piece_size(training: Training) -> int:
    """Images of one forward pass at most: as recovered from a lack of memory, as planned, or the whole share."""
    share = training.plan.compute.share(training.plan.batch_size)
    return min(share, training.state.micro_batch_size or training.plan.compute.micro_batch_size or share)


def least_piece(training: Training) -> int:
    return LEAST_FOR_BATCH_NORM if has_batch_norm(training.model) else 1


def number_of_pieces(training: Training) -> int:
    """The same on all ranks: that of the fullest."""
    share, size = training.plan.compute.share(training.plan.batch_size), piece_size(training)
    if size == share:
        return 1
    return max(1, min(math.ceil(share / size), share // least_piece(training)))


def cut(mixed: Mixed, count: int, least: int = 1) -> Iterator[tuple[Mixed, float]]:
    """`count` pieces of `least` images or more, of sizes that differ by one at most, each with its weight in the loss.

    A rank with too few images for so many repeats its last ones at weight 0: all ranks take as many passes.
    """
    if count == 1:
        yield mixed, 1.0
        return
    images = len(mixed.images)
    own = max(1, min(count, images // least))
    for number in range(own):
        yield _part(mixed, slice(images * number // own, images * (number + 1) // own)), 1.0
    for _ in range(own, count):
        yield _part(mixed, slice(max(0, images - least), images)), 0.0


def _part(mixed: Mixed, some: slice) -> Mixed:
    others = mixed.others[some] if mixed.others is not None else None
    return Mixed(mixed.images[some], mixed.labels[some], others, mixed.share)


def smaller(size: int, least: int, *, again: bool) -> int | None:
    """The next size to try: 0.8 of it, and half when that was too much `again`; None when there is none.

    Multiples of 8 suit the units that multiply matrices.
    """
    if size <= least:
        return None
    fewer = size // 2 if again or size <= 2 * MULTIPLE else int(size * 0.8)
    return max(least, fewer // MULTIPLE * MULTIPLE if fewer > MULTIPLE else fewer)
