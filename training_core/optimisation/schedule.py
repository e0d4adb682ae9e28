"""The learning rate: a pure function of the step, the plan, and what the evaluations changed about it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from training_core.contract.spec import MetricName, is_better
from training_core.planner.plan import Plan

# OneCycleLR's `div_factor` (Smith & Topin 2018).
ONE_CYCLE_START = 1 / 25
DECAYING = frozenset({"cosine", "linear", "one_cycle"})
# Of the steps done: what a decay that is brought forward takes (Hägele et al. 2024: 10 to 20 % come near a full one).
COOL_DOWN_FRACTION = 0.1


@dataclass
class ScheduleState:
    """What evaluations changed: how often `plateau` lowered the rate, and the decay that was brought forward.

    A cool-down of 0 steps is none.
    """

    lowered: int = 0
    best: float | None = None
    evaluations_since_best: int = 0
    cool_down_from: int = 0
    cool_down_steps: int = 0

    def observe(self, value: float, metric: MetricName, plan: Plan) -> bool:
        """Take one evaluation; True when `plateau` lowers the rate now."""
        if plan.schedule != "plateau":
            return False
        if is_better(value, self.best, metric):
            self.best, self.evaluations_since_best = value, 0
        else:
            self.evaluations_since_best += 1
        if self.evaluations_since_best < plan.schedule_options.patience:
            return False
        self.lowered, self.evaluations_since_best = self.lowered + 1, 0
        return True

    def cool_down(self, step: int, plan: Plan) -> None:
        """Bring the decay forward, in whole epochs so that it ends with an evaluation; near its end the plan stays."""
        epochs = max(1, math.ceil(COOL_DOWN_FRACTION * step / plan.steps_per_epoch))
        if step + epochs * plan.steps_per_epoch < plan.total_steps:
            self.cool_down_from, self.cool_down_steps = step, epochs * plan.steps_per_epoch


def last_step(plan: Plan, state: ScheduleState) -> int:
    """Where the training ends: with the plan, or with the decay that was brought forward."""
    return state.cool_down_from + state.cool_down_steps if state.cool_down_steps else plan.total_steps


def learning_rate_at(step: int, plan: Plan, state: ScheduleState) -> float:
    """The rate for the step after `step` steps; in a cool-down a line from where it began to the final rate."""
    if state.cool_down_steps and step >= state.cool_down_from:
        done = min(1.0, (step - state.cool_down_from) / state.cool_down_steps)
        return _between(_planned(state.cool_down_from, plan, state), _final(plan), done)
    return _planned(step, plan, state)


def _planned(step: int, plan: Plan, state: ScheduleState) -> float:
    """Warm-up, then what the schedule is called after.

    The cosine is equation 5 of Loshchilov & Hutter 2017 without restarts; `one_cycle` rises and falls by half cosines
    as torch's OneCycleLR does, the momentum left as the spec has it. `range_test` rises exponentially (Smith 2017).
    """
    peak, warmup = plan.learning_rate, plan.warmup_steps
    if step < warmup:
        return _rising(step, plan)
    done = min(1.0, (step - warmup) / max(1, plan.total_steps - warmup))
    match plan.schedule:
        case "cosine" | "one_cycle":
            return _between(peak, _final(plan), _half_cosine(done))
        case "linear":
            return _between(peak, _final(plan), done)
        case "plateau":
            return max(_final(plan), peak * plan.schedule_options.factor**state.lowered)
        case "range_test":
            return float(peak * plan.schedule_options.final_fraction ** (1 - done))
        case _:
            return peak


def _rising(step: int, plan: Plan) -> float:
    peak, warmup = plan.learning_rate, plan.warmup_steps
    if plan.schedule == "one_cycle":
        return _between(peak * ONE_CYCLE_START, peak, _half_cosine(step / warmup))
    return peak * (step + 1) / warmup


def _final(plan: Plan) -> float:
    return plan.learning_rate * plan.schedule_options.final_fraction


def _between(start: float, end: float, done: float) -> float:
    return start + (end - start) * done


def _half_cosine(done: float) -> float:
    """From 0 to 1, slow at both ends."""
    return 0.5 * (1 - math.cos(math.pi * done))


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
