"""The running means and deviations of batch norms, which a training that is short has not come near.

They are averages over the last steps: of weights that have moved on, and, in networks that remember a hundred batches
or more, still of the first ones. A network is then judged, and served, by statistics that are not its own: one that has
learned everything is right no more often than by chance. So a short training takes them anew, for the very weights that
are judged, before each evaluation ("precise batch norm", Wu & Johnson 2021, section 3).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from training_core.data.sampler import Indices
from training_core.engine.precision import autocast
from training_core.engine.training import Training
from training_core.vision.networks import norms_of
from training_core.vision.prefetch import Batch

SHORT_TRAINING_STEPS = 1000
MOST_IMAGES = 1024
STATISTICS_STREAM = 7


def take_anew(training: Training) -> None:
    """Of the weights as they are in the network, over training images as evaluations see them; called on all ranks.

    It depends on weights, data and seed alone: a resumed training takes the same. A long training keeps its averages.
    """
    if training.plan.total_steps >= SHORT_TRAINING_STEPS or not (norms := norms_of(training.model)):
        return
    ranks, rows = training.ranks, _rows(training)
    if len(rows) < 2 * ranks.world_size:
        return
    batches = 0
    with _taking(training.model, norms), training.exchange.evaluating(), torch.no_grad():
        for batch in _whole(training.feed.evaluation("train", rows)):
            images, _ = training.normalise(batch)
            with autocast(training.plan.precision, ranks.device):
                training.model(images)
            batches += 1
    if ranks.world_size > 1:
        for norm in norms:
            for values in (norm.running_mean, norm.running_var):
                assert values is not None  # noqa: S101  for the types
                ranks.sum(values.mul_(1 / ranks.world_size))


def _rows(training: Training) -> Indices:
    """In a random order, or each batch would be of one class; as many for each rank."""
    rows, ranks = training.materials.data.splits["train"], training.ranks
    shuffled: Indices = np.random.default_rng([training.plan.seed, STATISTICS_STREAM]).permutation(rows)
    return shuffled[: min(MOST_IMAGES, len(rows)) // ranks.world_size * ranks.world_size]


def _whole(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Without a last one of less than half: each counts alike, and few images say little of a deviation."""
    least = 0
    for batch in batches:
        if len(batch.images) >= least:
            yield batch
        least = least or math.ceil(len(batch.images) / 2)


@contextmanager
def _taking(model: nn.Module, norms: list[_BatchNorm]) -> Iterator[None]:
    """Inside, batch norms average over all that they see, from nothing, and all else is as in an evaluation."""
    kept = [(norm.momentum, norm.num_batches_tracked.clone()) for norm in norms if norm.num_batches_tracked is not None]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    try:
        yield
    finally:
        model.train()
        for norm, (momentum, count) in zip(norms, kept, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(count)  # type: ignore[union-attr]
