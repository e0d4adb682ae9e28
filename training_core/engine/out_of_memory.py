"""What happens when a device runs out of memory in the middle of a step."""

from __future__ import annotations

import gc

import torch

from training_core.contract.errors import Failed, Reason
from training_core.contract.reports import OomRecovered
from training_core.engine import oom_history
from training_core.engine.micro_batches import least_piece, piece_size, smaller
from training_core.engine.training import Training
from training_core.planner.host import look_at_host
from training_core.planner.table import key_of
from training_core.processes.heap import give_back_freed_memory


def make_room(training: Training) -> None:
    """Let all ranks take smaller pieces from now on; the batch, the schedule and the images of this step stay.

    Called on all ranks. Raises `Failed(out_of_memory)` when the pieces cannot get smaller.
    """
    state, before = training.state, piece_size(training)
    again = state.out_of_memory_step == state.step
    after = smaller(before, least_piece(training), again=again)
    if after is None:
        raise no_memory(training, f"a micro-batch of {before}")
    state.micro_batch_size, state.out_of_memory_step = after, state.step
    training.optimizer.zero_grad(set_to_none=True)
    training.parallel = None  # type: ignore[assignment]  # the exchange makes a new one when nobody holds the old one
    training.parallel = training.exchange.renew()
    give_back(training.ranks.device)
    remember(training, ran_out=before, micro_batch_size=after)
    training.reports.say(
        OomRecovered(
            step=state.step,
            micro_batch_before=before,
            micro_batch_after=after,
            batch_size=training.plan.batch_size,
        )
    )


def give_up(training: Training, obstacle: str) -> Failed:
    """Where the others wait for this rank within a pass; the next attempt begins with smaller pieces."""
    before = piece_size(training)
    after = smaller(before, least_piece(training), again=False)
    if after is None:
        return no_memory(training, f"a micro-batch of {before}")
    remember(training, ran_out=before, micro_batch_size=after)
    return Failed(
        Reason.OUT_OF_MEMORY,
        f"a device has no memory for a micro-batch of {before}, and {obstacle}, so that the ranks cannot try again",
        f"set compute.micro_batch_size to {after} or less; left on auto, the next job here takes that",
    )


def give_back(device: torch.device) -> None:
    """What the allocator keeps in pieces of the old sizes."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    else:
        give_back_freed_memory()


def remember(training: Training, *, ran_out: int, micro_batch_size: int) -> None:
    """For the next job of this kind on this host."""
    run = training.materials.run
    if training.ranks.first_of_host:
        key = key_of(training.plan, look_at_host(run))
        precision = training.plan.precision
        oom_history.remember(run.cache_dir, key, precision, ran_out=ran_out, micro_batch_size=micro_batch_size)


def no_memory(training: Training, what: str) -> Failed:
    return Failed(
        Reason.OUT_OF_MEMORY,
        f"the device has no memory for {what} of {training.plan.model} at {training.plan.image_size} pixels",
        "lower training.image_size, take a smaller model.name, set compute.activation_checkpointing, "
        "or set compute.strategy to fsdp on several devices",
    )
