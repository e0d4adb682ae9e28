"""The algorithm's part of a plan: every automatic value has a reason, and parts that exclude each other are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.inside import train_inside
from tests.training.plans import make_plan
from tests.training.running import make_run
from training_core.contract.compute_plan import ComputePlan
from training_core.contract.errors import Failed

ALGORITHM = (
    "training.optimizer.name", "training.optimizer.learning_rate", "training.optimizer.learning_rate_test",
    "training.optimizer.weight_decay", "training.schedule.name", "training.schedule.warmup_epochs",
    "training.label_smoothing", "training.ema_decay", "training.gradient_clipping", "training.resizing",
)  # fmt: skip


def test_every_automatic_value_has_a_reason() -> None:
    report = make_plan().report()
    assert {name: name in report.resolved for name in ALGORITHM} == dict.fromkeys(ALGORITHM, True)
    assert all(len(report.reasons[name]) > len("as requested") for name in ALGORITHM)


def test_what_the_spec_pins_stays() -> None:
    plan = make_plan(
        optimizer={"name": "radam", "learning_rate": 0.02, "weight_decay": 0.3, "betas": (0.5, 0.6)},
        schedule={"name": "linear", "warmup_epochs": 0.5},
        label_smoothing=0.2,
        ema_decay=None,
        gradient_clipping=1.5,
        resizing=None,
    )
    assert (plan.optimizer, plan.learning_rate, plan.weight_decay, plan.betas) == ("radam", 0.02, 0.3, (0.5, 0.6))
    assert (plan.schedule, plan.warmup_steps, plan.label_smoothing) == ("linear", 5, 0.2)
    assert (plan.ema_decay, plan.gradient_clipping, plan.resizing) == (None, 1.5, None)
    assert plan.reasons["training.ema_decay"] == "as requested"


def test_fewer_epochs_keep_the_proportions() -> None:
    plan = make_plan(epochs=100, schedule={"warmup_epochs": 10})
    short = plan.on(ComputePlan(epochs=50))
    assert (plan.warmup_steps, plan.total_steps) == (100, 1000)
    assert (short.warmup_steps, short.total_steps, short.epochs) == (50, 500, 50)
    assert plan.on(ComputePlan()).total_steps == 1000


def test_distillation_needs_images_and_so_no_frozen_trunk() -> None:
    model = {"name": "resnet18", "pretrained": True, "trainable": "head"}
    with pytest.raises(Failed, match=r"training\.distillation does not go with model\.trainable"):
        make_plan(model=model, distillation={"teacher": "job_00000000000000000000000001"})


def test_parts_that_exclude_each_other_are_refused_before_the_data_is_read(tmp_path: Path) -> None:
    run = make_run(tmp_path, f"file://{tmp_path}/nowhere", training={"resizing": {}, "sampling": {"buckets": "shape"}})
    assert train_inside(run) == 1
    assert (run.outcome.phase, run.outcome.reason) == ("preparing", "unsupported")
    assert "training.resizing" in (run.outcome.message or "")
