"""One optimizer step on a batch."""

from __future__ import annotations

import torch

from training_core.contract.errors import is_out_of_memory
from training_core.engine.micro_batches import cut, least_piece, number_of_pieces
from training_core.engine.out_of_memory import give_up, make_room, no_memory
from training_core.engine.precision import autocast
from training_core.engine.precision_fallback import fall_back_if_slow
from training_core.engine.training import Training
from training_core.optimisation.schedule import learning_rate_at, set_learning_rate
from training_core.vision.augment.mix import Mixed, mix
from training_core.vision.prefetch import Batch


def train_step(training: Training, batch: Batch) -> torch.Tensor:
    """One optimizer step on this rank's share of a global batch; returns its part of the mean loss, on the device.

    The share is taken in pieces whose gradients add up. DDP and FSDP average gradients over ranks; the loss is scaled
    so that the average is that of the global batch, however unevenly the ranks share it. When any rank runs out of
    memory, all take the same images again in smaller pieces. Raises `Failed(out_of_memory)`.
    """
    plan, state, ranks = training.plan, training.state, training.ranks
    training.stopwatch.begin()
    set_learning_rate(training.optimizer, learning_rate_at(state.step, plan, state.schedule))
    images, labels = training.normalise(batch)
    mixed = mix(images, labels, plan.mixing, step=state.step, world_size=ranks.world_size)
    training.meter.lap("transfer")
    if training.exchange.provisional and state.step > 0:
        pass_once(training, mixed)
    while (part := make_gradients(training, mixed)) is None:
        make_room(training)
    update(training)
    if (seconds := training.stopwatch.end()) is not None:
        fall_back_if_slow(training, seconds)
    return part


def pass_once(training: Training, mixed: Mixed) -> None:
    """Gradients that are thrown away, so that a resumed training exchanges its first ones as it would have anyway."""
    buffers = list(training.model.buffers())
    before = [buffer.clone() for buffer in buffers]
    make_gradients(training, mixed)
    for buffer, old in zip(buffers, before, strict=True):
        buffer.copy_(old)


def make_gradients(training: Training, mixed: Mixed) -> torch.Tensor | None:
    """The gradients of all ranks, and this rank's part of the mean loss; None when any rank ran out of memory."""
    plan, state, ranks = training.plan, training.state, training.ranks
    # Random numbers inside the network (dropout) follow from the step: exact to resume, and nothing to store.
    seed((plan.seed * 1_000_003 + state.step * 4099 + ranks.rank) % 2**63, ranks.device)
    training.optimizer.zero_grad(set_to_none=True)
    part = _in_pieces(training, mixed)
    if part is None and training.exchange.obstacle is not None:
        raise give_up(training, training.exchange.obstacle)
    # Only here, where what the failed pass held is free again.
    if training.exchange.settle(out_of_memory=part is None):
        return None
    if ranks.world_size > 1:
        training.meter.lap("communication")
    return part


def seed(number: int, device: torch.device) -> None:
    """As `torch.manual_seed`, which notes its caller for each kind of device that is not in use: 0.2 ms a step."""
    torch.default_generator.manual_seed(number)
    if device.type == "cuda":
        torch.cuda.manual_seed(number)


def _in_pieces(training: Training, mixed: Mixed) -> torch.Tensor | None:
    """None when this rank ran out of memory."""
    try:
        return _forward_and_backward(training, mixed)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return None


def _forward_and_backward(training: Training, mixed: Mixed) -> torch.Tensor:
    plan, ranks, parts = training.plan, training.ranks, []
    count = number_of_pieces(training)
    least = 1 if count == 1 else least_piece(training)
    for number, (piece, weight) in enumerate(cut(mixed, count, least), start=1):
        with training.exchange.piece(last=number == count):
            with autocast(plan.precision, ranks.device):
                logits = training.parallel(piece.images)
            part = training.objective.loss_sum(logits, piece) * (weight / plan.batch_size)
            shared = part if ranks.world_size == 1 else part * ranks.world_size
            training.meter.backward(training.scaler.scale(shared))
        parts.append(part.detach())
    return parts[0] if count == 1 else torch.stack(parts).sum()


def update(training: Training) -> None:
    """Move the weights by the gradients. Raises `Failed(out_of_memory)`: what is half moved cannot be moved again."""
    optimizer, scaler, largest = training.optimizer, training.scaler, training.plan.gradient_clipping
    try:
        if largest is not None:
            scaler.unscale_(optimizer)
            training.gradient_norm = torch.nn.utils.clip_grad_norm_(
                [one for one in training.model.parameters() if one.requires_grad], largest
            )
        scaler.step(optimizer)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise no_memory(training, "the optimizer") from error
    _count_overflows(training)
    if training.ema is not None:
        training.ema.update()
    training.meter.lap("optimizer")


def _count_overflows(training: Training) -> None:
    """Adapt the scale of fp16. A step whose gradients overflowed was left out; it counts in the schedule."""
    scaler = training.scaler
    before = scaler.get_scale() if scaler.is_enabled() else 0.0
    scaler.update()
    if scaler.is_enabled() and scaler.get_scale() < before:
        training.state.skipped_steps += 1
