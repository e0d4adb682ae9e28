"""One optimizer step on a batch."""

from __future__ import annotations

import torch

from training_core.data.augment.mix import mix
from training_core.data.load import Batch
from training_core.precision import autocast
from training_core.schedule import learning_rate_at, set_learning_rate
from training_core.training import Training


def train_step(training: Training, batch: Batch) -> torch.Tensor:
    """One optimizer step on this rank's share of a global batch; returns its part of the mean loss, on the device.

    DDP averages gradients over ranks; the loss is scaled so that the average is that of the global batch, however
    unevenly the ranks share it.
    """
    plan, state, ranks = training.plan, training.state, training.ranks
    # Random numbers inside the network (dropout) follow from the step: exact to resume, and nothing to store.
    torch.manual_seed((plan.seed * 1_000_003 + state.step * 4099 + ranks.rank) % 2**63)
    set_learning_rate(training.optimizer, learning_rate_at(state.step, plan))
    images, labels = training.normalise(batch)
    mixed = mix(images, labels, plan.mixing, step=state.step, world_size=ranks.world_size)
    training.optimizer.zero_grad(set_to_none=True)
    with autocast(plan.precision, ranks.device):
        logits = training.parallel(mixed.images)
    part = training.objective.loss_sum(logits, mixed) / plan.batch_size
    training.scaler.scale(part * ranks.world_size).backward()  # type: ignore[no-untyped-call]
    training.scaler.step(training.optimizer)
    training.scaler.update()
    return part.detach()
