"""When a training ends before its plan: by the rule, by the target, and never in the middle of a decay."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tests.training.plans import make_plan
from training_core.optimisation.early_stopping import Decision, EarlyStop, decide
from training_core.optimisation.schedule import ScheduleState, last_step
from training_core.planner.plan import Plan


def decisions(plan: Plan, values: list[float]) -> tuple[list[Decision], ScheduleState]:
    """What each evaluation means, one an epoch, until one says stop; as `judging.go_on` carries it out."""
    stop, schedule, taken = EarlyStop(), ScheduleState(), list[Decision]()
    for number, value in enumerate(values, 1):
        step = number * plan.steps_per_epoch
        lowered = schedule.observe(value, "validation/loss", plan)
        taken.append(decide(stop, schedule, value, step, plan, lowered=lowered))
        if taken[-1] == "cool_down":
            schedule.cool_down(step, plan)
        if taken[-1] == "stop":
            break
    return taken, schedule


def plan_of(schedule: str, rule: dict[str, Any] | None = None, **options: Any) -> Plan:
    return make_plan(epochs=100, schedule={"name": schedule, **options}, early_stopping={"patience": 2, **(rule or {})})


@pytest.mark.parametrize("schedule", ["cosine", "linear", "one_cycle"])
def test_a_decay_is_brought_forward_and_ends_the_training(schedule: str) -> None:
    plan = plan_of(schedule)
    taken, state = decisions(plan, [1.0, 0.9, 0.9, 0.9, 0.8, 0.7])
    assert taken == ["go_on", "go_on", "go_on", "cool_down", "stop"]
    assert last_step(plan, state) == 5 * plan.steps_per_epoch


def test_a_long_cool_down_has_evaluations_on_its_way() -> None:
    plan = plan_of("cosine", {"patience": 20})
    taken, _ = decisions(plan, [1.0] * 40)
    assert taken[20:] == ["cool_down", "go_on", "go_on", "stop"]


def test_a_constant_rate_stops_at_once() -> None:
    taken, state = decisions(plan_of("constant"), [1.0, 0.9, 0.9, 0.9])
    assert taken[-1] == "stop"
    assert state.cool_down_steps == 0


def test_plateau_stops_only_after_the_rate_was_lowered_and_had_its_chance() -> None:
    plan = plan_of("plateau", patience=4)
    taken, state = decisions(plan, [1.0] * 20)
    # Lowered at the fifth evaluation; two more without a new best are the rule's patience.
    assert len(taken) == 7
    assert taken[-1] == "stop"
    assert state.lowered == 1


def test_plateau_goes_on_while_the_lower_rate_helps() -> None:
    taken, _ = decisions(plan_of("plateau", patience=4), [1.0] * 5 + [0.9, 0.9, 0.8, 0.8, 0.8])
    assert taken == ["go_on"] * 9 + ["stop"]


@pytest.mark.parametrize("schedule", ["cosine", "constant", "plateau"])
def test_the_target_ends_any_training(schedule: str) -> None:
    taken, _ = decisions(plan_of(schedule, {"target": 0.5}), [1.0, math.nan, 0.6, 0.5, 0.1])
    assert taken == ["go_on", "go_on", "go_on", "stop"]


def test_the_target_ends_a_cool_down_too() -> None:
    plan = plan_of("cosine", {"target": 0.5, "patience": 20})
    taken, _ = decisions(plan, [1.0] * 21 + [0.4])
    assert taken[-2:] == ["cool_down", "stop"]


def test_the_target_of_an_accuracy_is_reached_from_below() -> None:
    plan = plan_of("cosine", {"target": 0.9, "metric": "validation/accuracy"})
    assert decide(EarlyStop(), ScheduleState(), 0.89, 10, plan, lowered=False) == "go_on"
    assert decide(EarlyStop(), ScheduleState(), 0.9, 10, plan, lowered=False) == "stop"


def test_without_a_rule_nothing_stops() -> None:
    taken, _ = decisions(make_plan(epochs=100, early_stopping=None), [1.0] * 50)
    assert set(taken) == {"go_on"}
