"""Plans of small trainings, decided from a spec as every other."""

from __future__ import annotations

from typing import Any

from training_core.contract.spec import JobSpec
from training_core.planner.plan import Plan, choose_plan
from training_core.planner.recipe import DataFacts


def make_plan(
    *, images: int = 120, image_size: int = 28, channels: int = 1, model: Any = "small_cnn", **training: Any
) -> Plan:
    """Ten steps an epoch and ten epochs where nothing else is said."""
    spec = JobSpec.model_validate(
        {
            "task": "image-classification",
            "dataset": {"uri": "file:///nowhere"},
            "model": {"name": model} if isinstance(model, str) else model,
            "training": {"epochs": 10, "batch_size": 12, **training},
        }
    )
    return choose_plan(spec, DataFacts(images, 3, channels, image_size, "as requested"), device="cpu")
