"""Rules of a training that need no training: early stopping, schedule."""

from __future__ import annotations

import math

import pytest

from tests.training.plans import make_plan
from training_core.contract.spec import EarlyStopping
from training_core.optimisation.early_stopping import EarlyStop
from training_core.optimisation.schedule import ScheduleState, learning_rate_at
from training_core.planner.plan import log_every


@pytest.mark.parametrize(
    ("values", "patience", "min_delta", "stops_at"),
    [
        ([3.0, 2.0, 1.0, 0.5], 1, 0.0, None),
        ([1.0, 1.0], 1, 0.0, 1),
        ([1.0, 2.0, 0.9, 2.0, 2.0], 2, 0.0, 4),
        ([1.0, 0.95, 0.9], 2, 0.2, 2),
        ([math.nan, math.nan], 2, 0.0, 1),
        ([1.0, math.nan, 0.5, math.nan, math.nan], 2, 0.0, 4),
        ([math.nan, 1.0, 0.9], 2, 0.0, None),
    ],
)
def test_no_new_best_in_the_last_evaluations(
    values: list[float], patience: int, min_delta: float, stops_at: int | None
) -> None:
    rule, stop = EarlyStopping(patience=patience, min_delta=min_delta), EarlyStop()
    decisions = [stop.observe(value, step, rule, patience) for step, value in enumerate(values)]
    assert (decisions.index(True) if True in decisions else None) == stops_at


def test_accuracy_rises() -> None:
    rule, stop = EarlyStopping(metric="validation/accuracy", patience=1), EarlyStop()
    assert not stop.observe(0.5, 1, rule, 1)
    assert not stop.observe(0.6, 2, rule, 1)
    assert stop.observe(0.6, 3, rule, 1)
    assert (stop.best, stop.best_step) == (0.6, 2)


def test_the_learning_rate_warms_up_and_falls_to_nothing() -> None:
    plan = make_plan(epochs=11, optimizer={"learning_rate": 1.0}, schedule={"name": "cosine", "warmup_epochs": 1})
    rates = [learning_rate_at(step, plan, ScheduleState()) for step in range(110)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[10] == 1.0
    assert rates[60] == pytest.approx(0.5)
    assert rates[-1] < 0.001


def test_curves_have_two_thousand_points_at_most() -> None:
    for steps in (1, 200, 201, 1000, 9_999, 20_000, 1_234_567):
        assert steps / log_every(steps) <= 2000
