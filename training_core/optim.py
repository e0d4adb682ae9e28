"""Optimizers without decay on norms and biases, and the learning rate as a function of the step."""

from __future__ import annotations

import math

import torch
from torch import nn

from training_core.plan import Plan


def make_optimizer(model: nn.Module, plan: Plan) -> torch.optim.Optimizer:
    """Two groups: matrices and filters with weight decay; norms and biases (one dimension or none) without."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [one for one in parameters if one.ndim >= 2], "weight_decay": plan.weight_decay},
        {"params": [one for one in parameters if one.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    rate = plan.learning_rate
    if plan.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=plan.momentum, nesterov=plan.momentum > 0)
    kind = torch.optim.AdamW if plan.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=rate)


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
