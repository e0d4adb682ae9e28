"""All that a training works with, put together by `attempt.py`, from the first step to the summary."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import nn

from training_core.clock import PhaseClock
from training_core.data.feed import Feed
from training_core.data.load import Normalise
from training_core.distributed import Ranks
from training_core.features import FeatureFeed, ToDevice
from training_core.keeping import Checkpoints
from training_core.learner import Materials
from training_core.objective import Objective
from training_core.plan import Plan
from training_core.reports import Reports
from training_core.rundir import RunDir
from training_core.state import TrainState
from training_core.tensors import Tensors


@dataclass
class Training:
    """All that a training works with.

    `network` is complete and what a checkpoint holds. `model` is what learns: the network, or its last layer.
    `parallel` is `model` wrapped for the ranks, or `model` itself.
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
    best_weights: Tensors | None = None

    @property
    def epoch(self) -> float:
        """Epochs done, with the fraction of the one that is under way."""
        return self.state.step / self.plan.steps_per_epoch

    def save(self) -> None:
        with self.clock.phase("checkpoint"):
            if self.ranks.first:
                self.checkpoints.save(self.network, self.optimizer, self.scaler, self.state, self.epoch)
