"""All that a training works with, put together by `attempt.py`, from the first step to the summary."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import nn

from training_core.checkpoints.manager import Checkpoints, Live
from training_core.checkpoints.train_state import TrainState
from training_core.contract.reporter import Reports
from training_core.contract.run_dir import RunDir
from training_core.distributed.gradient_sync import Exchange
from training_core.distributed.ranks import Ranks
from training_core.distributed.tensors import Tensors
from training_core.efficiency.clock import PhaseClock
from training_core.efficiency.meter import Meter
from training_core.engine.objective import Objective
from training_core.engine.precision import Stopwatch
from training_core.optimisation.averaging import Ema
from training_core.optimisation.schedule import last_step
from training_core.planner.plan import Plan
from training_core.tasks.image_classification.features import FeatureFeed, ToDevice
from training_core.tasks.image_classification.learner import Materials
from training_core.vision.data_loaders import Feed
from training_core.vision.prefetch import Normalise


@dataclass
class Training:
    """All that a training works with.

    `network` is complete and what a checkpoint holds. `model` is what learns: the network, or its last layer.
    `gradient_norm` is that of the last step before clipping, where gradients are clipped. `seconds_before` are those of
    the steps of earlier attempts.
    `parallel` is `model` wrapped for the ranks, or `model` itself. With `ema` the network has the weights that learn,
    and their average is what is judged, kept as the best and exported.
    """

    run_dir: RunDir
    plan: Plan
    ranks: Ranks
    materials: Materials
    feed: Feed | FeatureFeed
    normalise: Normalise | ToDevice
    network: nn.Module
    model: nn.Module
    parallel: nn.Module
    objective: Objective
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    checkpoints: Checkpoints
    reports: Reports
    clock: PhaseClock
    state: TrainState = field(default_factory=TrainState)
    seconds_before: float = 0.0
    best_weights: Tensors | None = None
    ema: Ema | None = None
    gradient_norm: torch.Tensor | None = None
    meter: Meter = field(init=False)
    exchange: Exchange = field(init=False)
    stopwatch: Stopwatch = field(init=False)

    def __post_init__(self) -> None:
        self.meter = Meter(self.clock, self.ranks.device, self.ranks.world_size)
        self.exchange = Exchange(self.parallel)
        self.stopwatch = Stopwatch(self.ranks.device)

    @property
    def epoch(self) -> float:
        """Epochs done, with the fraction of the one that is under way."""
        return self.state.step / self.plan.steps_per_epoch

    @property
    def last_step(self) -> int:
        """Where the training ends: with the plan, or with the decay that early stopping brought forward."""
        return last_step(self.plan, self.state.schedule)

    @property
    def end_step(self) -> int:
        """Where this attempt ends: with the training, or at the rung of a search that comes before."""
        until = self.materials.run.until
        rung = self.plan.total_steps if until is None else max(1, round(until * self.plan.total_steps))
        return min(self.last_step, rung)

    @property
    def is_complete(self) -> bool:
        return self.state.early_stopped or self.state.step >= self.last_step

    @property
    def stopped_early(self) -> bool:
        """Whether the rule of early stopping ended it before its plan did."""
        return self.state.early_stopped and self.state.step < self.plan.total_steps

    @property
    def fraction(self) -> float:
        """Of the steps that there are to do: all of them once it is complete, however early it stopped."""
        return 1.0 if self.is_complete else self.state.step / self.last_step

    def judged_weights(self) -> Tensors:
        """The complete network as it is judged, not copied."""
        return self.ema.tensors() if self.ema is not None else self.network.state_dict()

    @property
    def steps_seconds(self) -> float:
        """Of all steps so far, also of earlier attempts."""
        return self.seconds_before + self.clock.steps_seconds()

    def save(self) -> None:
        with self.clock.phase("checkpoint"):
            self.state.elapsed_seconds = round(self.steps_seconds, 4)
            if self.ranks.first or self.plan.compute.strategy == "fsdp":
                raw = self.network.state_dict() if self.ema is not None else None
                live = Live(self.judged_weights(), raw, self.optimizer, self.scaler)
                self.checkpoints.save(live, self.state, self.epoch)
        self.exchange.forget()

    def settle(self) -> None:
        """Wait until the last checkpoint is there, and tell of it. Raises what kept it from being written."""
        with self.clock.phase("checkpoint"):
            self.checkpoints.settle()
