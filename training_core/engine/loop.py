"""The training loop, from the first step to the summary."""

from __future__ import annotations

import math
from typing import Literal

import torch

from training_core.contract.errors import Failed, Reason
from training_core.contract.reports import FirstStep
from training_core.engine.accounting import Accounting
from training_core.engine.evaluation import finish, judge
from training_core.engine.progress import Pace
from training_core.engine.rung_evaluation import come_to_rung
from training_core.engine.step import train_step
from training_core.engine.training import Training
from training_core.optimisation.schedule import learning_rate_at

NON_FINITE_LOSSES_ALLOWED = 2

Ending = Literal["completed", "early_stopped", "rung_reached", "stopped"]


def fit(training: Training, accounting: Accounting) -> Ending:
    """Train to the end of the plan or to an early stop, to a rung of a search, or to the stop file."""
    pace = Pace(training, accounting)
    try:
        return _fit(training, accounting, pace)
    finally:
        pace.tell_last_step()


def _fit(training: Training, accounting: Accounting, pace: Pace) -> Ending:
    state, plan = training.state, training.plan
    batches = accounting.batches()
    while state.step < training.end_step and not state.early_stopped:
        training.meter.lap("loop")
        batch = next(batches)
        training.meter.lap("data_wait")
        loss = train_step(training, batch)
        state.step += 1
        state.images_seen += plan.batch_size
        accounting.step_done()
        if state.step == pace.first_step:
            training.reports.say(FirstStep(step=state.step))
        if state.step % plan.log_every == 0 or state.step == training.last_step:
            log(training, loss, pace, accounting)
        if state.step % plan.steps_per_epoch == 0:
            accounting.pause()
            judge(training)
            accounting.judged()
            pace.save_now = state.early_stopped
            pace.save_now |= state.best_step == state.step or plan.checkpoint_every_steps is None
        wishes = pace.consult()
        if wishes.save or wishes.stop or state.step == training.end_step:
            accounting.pause()
            training.save()
            pace.saved()
        training.checkpoints.poll()
        if wishes.account:
            accounting.exchange()
        if wishes.stop and state.step < training.end_step and not state.early_stopped:
            accounting.steps_end()
            training.settle()
            return "stopped"
    accounting.steps_end()
    if not training.is_complete:
        pace.tell_last_step()
        come_to_rung(training)
        return "rung_reached"
    training.settle()
    pace.tell_last_step()
    finish(training, pace)
    return "early_stopped" if training.stopped_early else "completed"


def log(training: Training, part: torch.Tensor, pace: Pace, accounting: Accounting) -> None:
    """Points of the training curves, progress, and the end of a training whose loss is no number any more."""
    state, plan = training.state, training.plan
    training.meter.lap("loop")
    loss = float(training.ranks.sum(part.double()))
    training.meter.agreed()
    values = {"train/loss": loss, "train/learning_rate": learning_rate_at(state.step - 1, plan, state.schedule)}
    if (norm := training.gradient_norm) is not None:
        # FSDP's is a DTensor, whose class takes 0.4 s to import.
        values["train/gradient_norm"] = float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)
    speed = pace.images_per_second()
    training.reports.metric(state.step, training.epoch, values | {"throughput/images_per_second": speed})
    accounting.alerts.training_loss(state.step, loss)
    if math.isfinite(loss):
        state.non_finite_losses = 0
    else:
        state.non_finite_losses += 1
        if state.non_finite_losses == 1:
            training.reports.alert("nan", f"the training loss is {loss} at step {state.step}", step=state.step)
        if state.non_finite_losses > NON_FINITE_LOSSES_ALLOWED:
            raise Failed(
                Reason.NAN_LOSS,
                f"the training loss is {loss} at step {state.step} and has been no number for a while",
                "lower training.optimizer.learning_rate",
            )
    pace.tell_progress(speed)
