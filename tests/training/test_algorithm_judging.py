"""Which model is the result, and what a training tells on its way."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from tests.training.inside import train_inside
from tests.training.running import Run, make_run
from training_core.contract.compute_plan import ComputePlan
from training_core.contract.errors import Reason
from training_core.runtime.attempt import Attempt
from training_core.runtime.launch import prepare

WILD = {"name": "adamw", "learning_rate": 3.0}


def trained(folder: Path, images: Path, job: str, **training: Any) -> Run:
    run = make_run(folder, f"file://{images}", training=training, job_id=job)
    assert train_inside(run) == 0, run.outcome
    return run


def test_the_best_model_is_the_result_or_the_last_one(tmp_path: Path, images: Path) -> None:
    """A rate that only rises, far too high at last, leaves the best model behind."""
    common = {"epochs": 6, "optimizer": WILD, "schedule": {"name": "one_cycle", "warmup_epochs": 6}}
    rule = {"metric": "validation/loss", "patience": 100}
    best = trained(tmp_path, images, "best", early_stopping=rule, **common)
    last = trained(tmp_path, images, "last", early_stopping={**rule, "restore_best": False}, **common)
    assert best.series("validation/loss") == last.series("validation/loss")
    losses = dict(best.series("validation/loss"))
    [of_best], [of_last] = best.of_kind("summary"), last.of_kind("summary")
    assert of_best.best_step < 18, "or this test shows nothing"
    assert of_best.metrics["validation/loss"] == min(losses.values()) == losses[of_best.best_step]
    assert of_last.metrics["validation/loss"] == losses[18]
    assert of_last.metrics["test/loss"] != of_best.metrics["test/loss"]


def test_the_target_ends_a_training(tmp_path: Path, images: Path) -> None:
    rule = {"metric": "validation/accuracy", "target": 0.1}
    run = trained(tmp_path, images, "target", epochs=50, early_stopping=rule)
    [stopped] = run.of_kind("early_stopped")
    assert (stopped.step, stopped.target) == (3, 0.1)
    assert (run.outcome.result, run.outcome.reason) == ("completed", Reason.EARLY_STOPPED)


def test_the_norm_of_the_gradients_is_told_where_they_are_clipped(tmp_path: Path, images: Path) -> None:
    clipped = trained(tmp_path, images, "clipped", epochs=2, gradient_clipping=0.05)
    free = trained(tmp_path, images, "free", epochs=2, gradient_clipping=None)
    norms = [value for _, value in clipped.series("train/gradient_norm")]
    assert len(norms) == 6
    assert all(math.isfinite(norm) and norm > 0.05 for norm in norms), "the norm before clipping"
    assert not free.series("train/gradient_norm")
    assert clipped.series("train/loss")[0] == free.series("train/loss")[0]
    assert clipped.series("train/loss")[-1] != free.series("train/loss")[-1]


@pytest.mark.parametrize("optimizer", ["muon", "adafactor"])
def test_others_than_the_usual_optimizers_learn_too(tmp_path: Path, images: Path, optimizer: str) -> None:
    run = trained(tmp_path, images, optimizer, epochs=8, optimizer={"name": optimizer}, ema_decay=0.8)
    losses = [value for _, value in run.series("train/loss")]
    assert min(losses[-3:]) < 0.9 * losses[0]


def test_a_stop_of_the_rule_is_the_reason_and_the_progress_is_that_of_the_last_step(
    tmp_path: Path, images: Path
) -> None:
    """At a constant rate it stops at once, 60 steps before anything was told of its progress."""
    rule = {"metric": "validation/loss", "patience": 2, "min_delta": 10.0}
    run = trained(tmp_path, images, "early", epochs=60, schedule={"name": "constant"}, early_stopping=rule)
    [stopped], told = run.of_kind("early_stopped"), run.of_kind("progress")[-1]
    assert (run.outcome.result, run.outcome.reason) == ("completed", Reason.EARLY_STOPPED)
    assert (stopped.step, stopped.target) == (9, None)
    assert (told.step, told.epoch, told.fraction, told.eta_seconds) == (9, 3.0, 1.0, 0.0)


def test_a_training_that_is_stopped_or_fails_tells_how_far_it_came(tmp_path: Path, images: Path) -> None:
    wild = {"name": "sgd", "learning_rate": 100.0}
    failing = make_run(tmp_path, f"file://{images}", training={"epochs": 50, "optimizer": wild}, job_id="wild")
    assert train_inside(failing) == 1
    told = failing.of_kind("progress")[-1]
    assert failing.outcome.step == told.step > 0
    assert told.fraction == told.step / 150
    stopped = make_run(tmp_path, f"file://{images}", training={"epochs": 50}, job_id="stopped")
    assert prepare(stopped.dir) == 0
    stopped.dir.write_plan(ComputePlan(threads=1))
    stopped.dir.request_stop()
    assert Attempt(stopped.dir).run() == 0
    told = stopped.of_kind("progress")[-1]
    assert (stopped.outcome.result, stopped.outcome.step) == ("stopped", told.step)
    assert told.eta_seconds > 0
