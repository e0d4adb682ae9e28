"""The learning rate as a function of the step."""

from __future__ import annotations

import math

import torch

from training_core.plan import Plan


def learning_rate_at(step: int, plan: Plan) -> float:
    """The rate for the step after `step` steps: linear warm-up, then flat or a cosine to zero.

    The cosine is equation 5 of Loshchilov & Hutter 2017 without restarts.
    """
    if step < plan.warmup_steps:
        return plan.learning_rate * (step + 1) / plan.warmup_steps
    if plan.schedule == "constant":
        return plan.learning_rate
    done = (step - plan.warmup_steps) / max(1, plan.total_steps - plan.warmup_steps)
    return plan.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
