"""Early stopping: no new best in the last `patience` evaluations, or the target is reached."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from training_core.contract.spec import EarlyStopping, is_better
from training_core.optimisation.schedule import DECAYING, ScheduleState
from training_core.planner.plan import Plan

Decision = Literal["go_on", "cool_down", "stop"]


@dataclass
class EarlyStop:
    """Counts the evaluations since the last new best; an evaluation that is NaN brings none.

    `best` and `best_step` belong to the rule (with its `min_delta`); the checkpoint that is kept as the best one
    follows every improvement, however small.
    """

    best: float | None = None
    best_step: int = 0
    evaluations_since_best: int = 0

    def observe(self, value: float, step: int, rule: EarlyStopping, patience: int) -> bool:
        """Take one evaluation of `rule.metric`; True when the last `patience` of them brought no new best."""
        if is_better(value, self.best, rule.metric, rule.min_delta):
            self.best, self.best_step, self.evaluations_since_best = value, step, 0
        else:
            self.evaluations_since_best += 1
        return self.evaluations_since_best >= patience


def reached(value: float, rule: EarlyStopping) -> bool:
    """Whether `rule.target` is met; NaN meets none."""
    if rule.target is None:
        return False
    return value >= rule.target if rule.metric.endswith("accuracy") else value <= rule.target


def decide(stop: EarlyStop, schedule: ScheduleState, value: float, step: int, plan: Plan, *, lowered: bool) -> Decision:
    """What the evaluation `value` after `step` steps means; `lowered` says that it made `plateau` lower the rate.

    A schedule that has not decayed yet is not cut off: the best model is still to come, so its decay is brought
    forward. Under `plateau` the count begins anew when the rate is first lowered, and nothing stops before.
    """
    rule = plan.early_stopping
    if rule is None:
        return "go_on"
    no_new_best = stop.observe(value, step, rule, plan.patience)
    if reached(value, rule):
        return "stop"
    if schedule.cool_down_steps:
        return "stop" if step >= schedule.cool_down_from + schedule.cool_down_steps else "go_on"
    if lowered and schedule.lowered == 1:
        stop.evaluations_since_best = 0
        return "go_on"
    if not no_new_best or (plan.schedule == "plateau" and schedule.lowered == 0):
        return "go_on"
    return "cool_down" if plan.schedule in DECAYING else "stop"
