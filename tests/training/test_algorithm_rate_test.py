"""The range test of the learning rate: what it picks, what it costs, and that a resumed training keeps it."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch

from tests.training.inside import train_inside
from tests.training.plans import make_plan
from tests.training.running import make_run
from training_core.optimisation.schedule import ScheduleState, learning_rate_at
from training_core.planner.recipe import LEAST_RATE_TEST_STEPS
from training_core.preflight.rate_test import HIGHEST, LOWEST, MOST_STEPS, middle_of_fall, sweep_of


def test_the_rate_lies_below_where_gradient_descent_diverges() -> None:
    """On a quadratic of curvature 1 to 20 plain gradient descent diverges from a rate of 0.1 on."""
    curvature, point = torch.linspace(1, 20, 30), torch.ones(30)
    rates, losses = [], []
    for step in range(100):
        rate = 1e-4 * 10 ** (4 * step / 99)
        rates.append(rate)
        losses.append(float((curvature * point**2).sum()))
        point = point - rate * curvature * point
        if losses[-1] > 4 * min(losses):
            break
    chosen = middle_of_fall(rates, losses)
    assert chosen is not None
    assert 1e-3 < chosen < 0.1


def test_the_middle_between_a_tenth_of_the_fall_and_the_lowest_loss() -> None:
    rates = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0]
    assert middle_of_fall(rates, [9.0, 9.1, 8.9, 8.0, 6.0, 4.0, 20.0]) == 16.0
    assert middle_of_fall(rates, [9.0, 8.0, 9.0, 7.0, 6.0, 5.0, 4.0]) == pytest.approx(11.3137)


@pytest.mark.parametrize("losses", [[], [1.0], [1.0, 2.0, 3.0], [1.0, 0.999, 1.5]])
def test_no_fall_no_rate(losses: list[float]) -> None:
    assert middle_of_fall([1.0, 2.0, 3.0][: len(losses)], losses) is None


def test_the_sweep_rises_exponentially_around_the_rate_of_the_recipe() -> None:
    plan = make_plan(images=12_000, optimizer={"name": "nadam"})
    sweep = sweep_of(plan)
    rates = [learning_rate_at(step, sweep, ScheduleState()) for step in range(sweep.total_steps)]
    assert rates[0] == pytest.approx(plan.learning_rate * LOWEST)
    assert rates[-1] < plan.learning_rate * HIGHEST
    ratios = [later / rate for rate, later in pairwise(rates)]
    assert ratios == pytest.approx([ratios[0]] * len(ratios))


@pytest.mark.parametrize("images", [16_000, 120_000])
def test_where_the_test_is_ours_it_takes_less_than_three_percent(images: int) -> None:
    plan = make_plan(images=images, optimizer={"name": "rmsprop"})
    assert plan.learning_rate_test
    assert sweep_of(plan).total_steps <= min(MOST_STEPS, 0.03 * plan.total_steps)


@pytest.mark.parametrize(
    ("images", "optimizer", "words"),
    [
        (12_000, {"name": "adamw"}, "is known"),
        (12_000, {"name": "rmsprop", "learning_rate": 0.1}, "is given"),
        (12_000, {"name": "rmsprop", "learning_rate": 0.1, "learning_rate_test": True}, "is given"),
        (1_200, {"name": "rmsprop"}, "too few"),
    ],
)
def test_it_is_off_where_it_cannot_pay(images: int, optimizer: dict[str, object], words: str) -> None:
    plan = make_plan(images=images, optimizer=optimizer)
    assert not plan.learning_rate_test
    assert words in plan.reasons["training.optimizer.learning_rate_test"]


def test_a_training_begins_with_what_it_found_and_keeps_it(tmp_path: Path, images: Path) -> None:
    training = {
        "epochs": 4,
        "optimizer": {"name": "adamw", "learning_rate_test": True},
        "checkpoint_every_steps": 3,
        "keep_last_checkpoints": 10,
    }
    run = make_run(tmp_path, f"file://{images}", training=training)
    assert train_inside(run) == 0, run.outcome
    [plan] = run.of_kind("plan_chosen")
    rate = plan.resolved["training.optimizer.learning_rate"]
    assert "the range test found it" in plan.reasons["training.optimizer.learning_rate"]
    [told] = [one for one in run.of_kind("alert_raised") if one.alert == "learning_rate_test"]
    assert told.data["chosen"] == rate
    assert len(told.data["rates"]) == len(told.data["losses"]) <= LEAST_RATE_TEST_STEPS
    assert 1e-4 < rate < 1e-1
    assert max(value for _, value in run.series("train/learning_rate")) == rate
    before = run.file("jobs/local/trial-0/learning_rate_test.json").stat().st_mtime_ns
    saved = {one.step: one.path for one in run.of_kind("checkpoint_saved")}
    again = make_run(tmp_path, f"file://{images}", training=training, attempt=2, resume_from=saved[6])
    assert train_inside(again) == 0, again.outcome
    assert again.of_kind("plan_chosen")[0].resolved == plan.resolved
    assert again.series("train/loss") == run.series("train/loss")
    assert run.file("jobs/local/trial-0/learning_rate_test.json").stat().st_mtime_ns == before
