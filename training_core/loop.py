"""The training loop, from the first step to the summary."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

import torch
from torch import nn

from training_core.checkpoint import Tensors
from training_core.clock import PhaseClock
from training_core.data.augment.mix import mix
from training_core.data.feed import Feed
from training_core.data.load import Batch, Normalise
from training_core.distributed import Ranks
from training_core.events import EarlyStopped, FirstStep, Progress, Summary
from training_core.failure import Failed
from training_core.features import FeatureFeed, ToDevice
from training_core.keeping import Checkpoints
from training_core.learner import Materials
from training_core.optim import learning_rate_at, set_learning_rate
from training_core.plan import Plan
from training_core.precision import autocast
from training_core.reports import Reports, all_finite
from training_core.rundir import RunDir
from training_core.spec import EarlyStopping, is_better
from training_core.state import TrainState
from training_core.tasks import image_classification as task
from training_core.wire import Reason

CONSULT_SECONDS = 0.4
LONG_EPOCH_CHECKPOINT_SECONDS = 180.0
NON_FINITE_LOSSES_ALLOWED = 2
PROGRESS_SECONDS = 1.0


@dataclass
class Training:
    """All that a training works with.

    `network` is complete and what a checkpoint holds. `model` is what learns: the network, or its last layer.
    `parallel` is `model` wrapped for the ranks, or `model` itself.
    """

    run_dir: RunDir
    plan: Plan
    rule: EarlyStopping | None
    ranks: Ranks
    materials: Materials
    feed: Feed | FeatureFeed
    normalise: Normalise | ToDevice
    network: nn.Module
    model: nn.Module
    parallel: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    checkpoints: Checkpoints
    reports: Reports
    clock: PhaseClock
    state: TrainState = field(default_factory=TrainState)
    best_weights: Tensors | None = None

    @property
    def epoch(self) -> float:
        """Epochs done, with the fraction of the one that is under way."""
        return self.state.step / self.plan.steps_per_epoch

    def save(self) -> None:
        with self.clock.phase("checkpoint"):
            if self.ranks.first:
                self.checkpoints.save(self.network, self.optimizer, self.scaler, self.state, self.epoch)


def fit(training: Training) -> str:
    """Train to the end of the plan, to an early stop, or to the stop file; returns `completed` or `stopped`."""
    state, plan = training.state, training.plan
    pace = Pace(training)
    batches = training.feed.training(state.step)
    while state.step < plan.total_steps and not state.early_stopped:
        with training.clock.phase("data"):
            batch = next(batches)
        with training.clock.phase("train"):
            loss = train_step(training, batch)
        state.step += 1
        state.images_seen += plan.batch_size
        if state.step == pace.first_step:
            training.reports.say(FirstStep(step=state.step))
        if state.step % plan.log_every == 0 or state.step == plan.total_steps:
            log(training, loss, pace)
        if state.step % plan.steps_per_epoch == 0:
            judge(training)
            pace.save_now = training.rule is not None and state.early_stopped
            pace.save_now |= state.best_step == state.step or plan.checkpoint_every_steps is None
        wishes = pace.consult()
        if wishes.save or wishes.stop or state.step == plan.total_steps:
            training.save()
            pace.saved()
        if wishes.stop and state.step < plan.total_steps and not state.early_stopped:
            return "stopped"
    finish(training, pace)
    return "completed"


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
    part = mixed.loss(lambda truth: task.loss_sum(logits, truth, plan.label_smoothing)) / plan.batch_size
    training.scaler.scale(part * ranks.world_size).backward()  # type: ignore[no-untyped-call]
    training.scaler.step(training.optimizer)
    training.scaler.update()
    return part.detach()


def log(training: Training, part: torch.Tensor, pace: Pace) -> None:
    """Points of the training curves, progress, and the end of a training whose loss is no number any more."""
    state, plan = training.state, training.plan
    with training.clock.phase("train"):
        loss = float(training.ranks.sum(part.double()))
    values = {"train/loss": loss, "train/learning_rate": learning_rate_at(state.step - 1, plan)}
    speed = pace.images_per_second()
    training.reports.metric(state.step, training.epoch, values | {"throughput/images_per_second": speed})
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


def evaluate(training: Training, split: str) -> dict[str, float]:
    """Metrics over every image of a split, each counted once, the ranks sharing the work."""
    sums = torch.zeros(3, dtype=torch.float64, device=training.ranks.device)
    training.ranks.same_buffers(training.model)
    training.model.eval()
    with torch.no_grad():
        for batch in training.feed.evaluation(split):
            images, labels = training.normalise(batch)
            with autocast(training.plan.precision, training.ranks.device):
                logits = training.model(images)
            sums += task.evaluation_sums(logits, labels)
    training.model.train()
    return {f"{split}/{name}": value for name, value in task.metrics_of(training.ranks.sum(sums)).items()}


def judge(training: Training) -> None:
    """Evaluate on the validation images, keep the best weights, and apply the rule of early stopping."""
    state, rule = training.state, training.rule
    with training.clock.phase("evaluate"):
        metrics = evaluate(training, "validation")
    training.reports.metric(state.step, training.epoch, metrics)
    if not all_finite(metrics):
        training.reports.alert("nan", f"the validation loss is no number at step {state.step}", step=state.step)
    state.latest_metrics = metrics
    metric = (rule or EarlyStopping()).metric
    if is_better(metrics[metric], state.best, metric):
        state.best, state.best_step, state.best_metrics = metrics[metric], state.step, metrics
        weights = training.network.state_dict()
        training.best_weights = {name: tensor.detach().clone() for name, tensor in weights.items()}
    if rule is not None:
        state.early_stopped = state.early_stop.observe(metrics[rule.metric], state.step, rule)


def finish(training: Training, pace: Pace) -> None:
    """Test the best model, once, and sum up."""
    state, rule, reports = training.state, training.rule, training.reports
    if state.early_stopped and rule is not None and state.step < training.plan.total_steps:
        reports.say(
            EarlyStopped(
                step=state.step,
                epoch=round(training.epoch, 6),
                metric=rule.metric,
                best=state.best if state.best is not None else math.nan,
                best_step=state.best_step,
                patience=rule.patience,
            )
        )
    if training.best_weights is not None:
        training.network.load_state_dict(training.best_weights)
    metrics = dict(state.best_metrics)
    if training.feed.images("test") > 0:
        with training.clock.phase("evaluate"):
            tested = evaluate(training, "test")
        reports.metric(state.step, training.epoch, tested)
        metrics |= tested
    reports.say(
        Summary(
            metrics=metrics,
            best_step=state.best_step,
            best_checkpoint=state.best_checkpoint,
            seconds=training.clock.account(),
            images_seen=state.images_seen,
            images_per_second=round(pace.images_per_second_overall(), 2),
        )
    )
    reports.sync()


@dataclass(frozen=True)
class Wishes:
    stop: bool
    save: bool


class Pace:
    """Speeds, and how often the ranks consult: rank 0 looks at the stop file and the clock, the others follow it."""

    def __init__(self, training: Training) -> None:
        self._training = training
        self._start_step = training.state.step
        self._started = self._saved_at = self._told_at = time.perf_counter()
        self._measured = (training.state.step, 0.0)
        self._next_consultation = training.state.step + 1
        self.first_step = training.state.step + 1
        self.save_now = False

    def _busy_seconds(self) -> float:
        seconds = self._training.clock.seconds
        return seconds["data"] + seconds["train"]

    def images_per_second(self) -> float:
        """Since the last call, without evaluations and checkpoints."""
        step, busy = self._training.state.step, self._busy_seconds()
        before_step, before_busy = self._measured
        self._measured = (step, busy)
        return round((step - before_step) * self._training.plan.batch_size / max(busy - before_busy, 1e-9), 2)

    def images_per_second_overall(self) -> float:
        steps = self._training.state.step - self._start_step
        return steps * self._training.plan.batch_size / max(self._busy_seconds(), 1e-9)

    def consult(self) -> Wishes:
        """What to do at this step boundary. Between consultations only what all ranks know by themselves."""
        state, plan = self._training.state, self._training.plan
        save, self.save_now = self.save_now, False
        if plan.checkpoint_every_steps is not None:
            save = save or state.step % plan.checkpoint_every_steps == 0
        if state.step < self._next_consultation:
            return Wishes(stop=False, save=save)
        now = time.perf_counter()
        due = plan.checkpoint_every_steps is None and now - self._saved_at > LONG_EPOCH_CHECKPOINT_SECONDS
        seconds_per_step = (now - self._started) / (state.step - self._start_step)
        steps = min(500, max(1, int(CONSULT_SECONDS / seconds_per_step)))
        stop, due_agreed, steps = self._training.ranks.from_first(
            [int(self._training.run_dir.stop_requested()), int(due), steps]
        )
        self._next_consultation = state.step + steps
        return Wishes(stop=bool(stop), save=save or bool(due_agreed))

    def saved(self) -> None:
        self._saved_at = time.perf_counter()

    def tell_progress(self, images_per_second: float) -> None:
        state, plan, now = self._training.state, self._training.plan, time.perf_counter()
        if now - self._told_at < PROGRESS_SECONDS and state.step < plan.total_steps:
            return
        self._told_at = now
        seconds_per_step = (now - self._started) / max(1, state.step - self._start_step)
        self._training.reports.say(
            Progress(
                step=state.step,
                epoch=round(self._training.epoch, 6),
                fraction=state.step / plan.total_steps,
                images_per_second=images_per_second,
                eta_seconds=round(seconds_per_step * (plan.total_steps - state.step), 2),
            )
        )
