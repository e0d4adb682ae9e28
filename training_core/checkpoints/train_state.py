"""Everything about a training that changes, besides tensors. A checkpoint holds all of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from training_core.optimisation.early_stopping import EarlyStop
from training_core.optimisation.schedule import ScheduleState


@dataclass
class TrainState:
    """`step` counts optimizer steps; epoch, position in the epoch, learning rate and random numbers follow from it.

    `images_seen` and `elapsed_seconds`, which are those of the steps, are of all attempts together.

    `latest_metrics` are those of the evaluation at `latest_step`.

    `kept` names the checkpoints that may exist in the store, also those of earlier attempts. `micro_batch_size` and
    `precision` are set where the plan's turned out not to fit, or to be slow. `skipped_steps` are those whose gradients
    overflowed in fp16: they count as steps, and moved nothing.
    """

    step: int = 0
    images_seen: int = 0
    elapsed_seconds: float = 0.0
    early_stop: EarlyStop = field(default_factory=EarlyStop)
    early_stopped: bool = False
    schedule: ScheduleState = field(default_factory=ScheduleState)
    best: float | None = None
    best_step: int = 0
    best_metrics: dict[str, float] = field(default_factory=dict)
    best_checkpoint: str | None = None
    latest_metrics: dict[str, float] = field(default_factory=dict)
    latest_step: int = 0
    last_checkpoint: str | None = None
    non_finite_losses: int = 0
    micro_batch_size: int | None = None
    out_of_memory_step: int | None = None
    precision: str | None = None
    skipped_steps: int = 0
    kept: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(content: dict[str, Any]) -> TrainState:
        """Raises `TypeError` for content that is not a state."""
        parts = {
            "early_stop": EarlyStop(**content["early_stop"]),
            "schedule": ScheduleState(**content.get("schedule", {})),
        }
        return TrainState(**{**content, **parts})
