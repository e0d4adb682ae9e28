"""Learning rates against those of torch's own schedulers, and what evaluations change about them."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch.optim import lr_scheduler

from tests.training.plans import make_plan
from training_core.optimisation.schedule import ScheduleState, last_step, learning_rate_at
from training_core.planner.plan import Plan

RATE = 0.5


def plan_of(name: str, warmup_epochs: float = 0.0, **schedule: object) -> Plan:
    return make_plan(
        optimizer={"name": "sgd", "learning_rate": RATE},
        schedule={"name": name, "warmup_epochs": warmup_epochs, **schedule},
    )


def rates_of(plan: Plan, state: ScheduleState | None = None) -> list[float]:
    return [learning_rate_at(step, plan, state or ScheduleState()) for step in range(plan.total_steps)]


def torch_rates(make: object, steps: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=RATE)
    scheduler = make(optimizer)  # type: ignore[operator]
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_a_cosine_is_torchs() -> None:
    expected = torch_rates(lambda one: lr_scheduler.CosineAnnealingLR(one, 100, eta_min=0.02 * RATE), 100)
    assert rates_of(plan_of("cosine", final_fraction=0.02)) == pytest.approx(expected, rel=1e-9)


def test_a_line_is_torchs() -> None:
    expected = torch_rates(lambda one: lr_scheduler.LinearLR(one, 1.0, 0.1, 100), 100)
    assert rates_of(plan_of("linear", final_fraction=0.1)) == pytest.approx(expected, rel=1e-9)


def test_a_warm_up_is_torchs() -> None:
    def make(optimizer: torch.optim.Optimizer) -> lr_scheduler.LRScheduler:
        warmup = lr_scheduler.LinearLR(optimizer, 1 / 20, 1.0, 19)
        return lr_scheduler.SequentialLR(optimizer, [warmup, lr_scheduler.ConstantLR(optimizer, 1.0)], [20])

    assert rates_of(plan_of("constant", 2.0)) == pytest.approx(torch_rates(make, 100), rel=1e-9)


def test_one_cycle_is_torchs() -> None:
    """Torch ends one step later, with the final rate itself."""
    final = 1e-3

    def make(optimizer: torch.optim.Optimizer) -> lr_scheduler.LRScheduler:
        return lr_scheduler.OneCycleLR(
            optimizer, RATE, total_steps=101, pct_start=31 / 101, cycle_momentum=False, final_div_factor=1 / 25 / final
        )

    rates = rates_of(plan_of("one_cycle", 3.0, final_fraction=final))
    assert rates == pytest.approx(torch_rates(make, 100), rel=1e-9)
    assert max(rates) == rates[30] == RATE


def test_one_cycle_rises_for_thirty_percent_by_itself() -> None:
    plan = make_plan(optimizer={"learning_rate": RATE}, schedule={"name": "one_cycle"})
    assert plan.warmup_steps == 30
    assert "30 %" in plan.reasons["training.schedule.warmup_epochs"]


def test_plateau_is_torchs() -> None:
    plan = plan_of("plateau", patience=3, factor=0.5, final_fraction=0.1)
    values = [1.0, 0.9, 0.95, 0.95, 0.95, 0.95, 0.8, math.nan, 0.8, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=RATE)
    # Torch waits for one more than its patience.
    scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=2, threshold=0.0, min_lr=0.1 * RATE)
    state = ScheduleState()
    for number, value in enumerate(values):
        state.observe(value, "validation/loss", plan)
        scheduler.step(value)
        assert learning_rate_at(10 * (number + 1), plan, state) == pytest.approx(optimizer.param_groups[0]["lr"])
    assert state.lowered > 3


def test_only_plateau_looks_at_evaluations() -> None:
    state = ScheduleState()
    assert not any(state.observe(1.0, "validation/loss", plan_of("cosine", patience=1)) for _ in range(5))
    assert state == ScheduleState()


@pytest.mark.parametrize("name", ["cosine", "linear", "one_cycle"])
def test_a_cool_down_brings_the_decay_forward(name: str) -> None:
    plan, state = plan_of(name, 1.0, final_fraction=0.01), ScheduleState()
    before = rates_of(plan)
    state.cool_down(40, plan)
    rates = [learning_rate_at(step, plan, state) for step in range(last_step(plan, state) + 1)]
    assert last_step(plan, state) == 50, "a tenth of 40 steps, in whole epochs"
    assert rates[:41] == before[:41]
    drops = [one - other for one, other in pairwise(rates[40:51])]
    assert drops == pytest.approx([drops[0]] * 10)
    assert drops[0] > 0
    assert rates[50] == pytest.approx(0.01 * RATE)


def test_a_long_training_cools_down_for_a_tenth_of_it() -> None:
    plan, state = make_plan(epochs=1000), ScheduleState()
    state.cool_down(5430, plan)
    assert last_step(plan, state) == 5430 + 550


def test_near_the_end_the_plan_stays() -> None:
    plan, state = plan_of("cosine"), ScheduleState()
    state.cool_down(90, plan)
    assert last_step(plan, state) == plan.total_steps
    assert rates_of(plan, state) == rates_of(plan)
