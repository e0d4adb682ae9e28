"""Optimizers by name, without decay on norms and biases."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any

from torch import nn, optim

from training_core.contract.errors import Failed, Reason
from training_core.optimisation.layers import first_convolution, head
from training_core.optimisation.muon import Muon
from training_core.planner.plan import Plan

NAMED_LAYERS = 3
# Muon takes their singular vectors, Adafactor the means of rows and columns: torch has neither for shards.
NEED_WHOLE_MATRICES = frozenset({"muon", "adafactor"})
Group = dict[str, Any]


def make_optimizer(model: nn.Module, plan: Plan) -> optim.Optimizer:
    """The optimizer of the plan over what learns in `model`.

    Fused where torch has it: a step of small_cnn takes 0.35 of the time of a loop over its tensors with AdamW and 0.54
    with SGD, on one core, and rounds differently in the last bit. Raises `Failed(unsupported)`.
    """
    _check_shards(plan)
    rate, groups = plan.learning_rate, make_groups(model, plan)
    # The sharded tensors of FSDP have no fused kernels for all of them.
    fused: dict[str, Any] = {} if plan.compute.strategy == "fsdp" else {"fused": True}
    adam: dict[str, Any] = {"lr": rate, "betas": plan.betas}
    makers: dict[str, Callable[[], optim.Optimizer]] = {
        "sgd": lambda: optim.SGD(groups, lr=rate, momentum=plan.momentum, nesterov=plan.momentum > 0, **fused),
        "adam": lambda: optim.Adam(groups, **adam, **fused),
        "adamw": lambda: optim.AdamW(groups, **adam, **fused),
        "nadam": lambda: optim.NAdam(groups, decoupled_weight_decay=True, **adam),
        "radam": lambda: optim.RAdam(groups, decoupled_weight_decay=True, **adam),
        "adamax": lambda: optim.Adamax(groups, **adam),
        "adagrad": lambda: optim.Adagrad(groups, lr=rate, **fused),
        "adadelta": lambda: optim.Adadelta(groups, lr=rate),
        "rmsprop": lambda: optim.RMSprop(groups, lr=rate, momentum=plan.momentum),
        "adafactor": lambda: optim.Adafactor(groups, lr=rate),
        "muon": lambda: _muon(groups, model, plan),
    }
    return makers[plan.optimizer]()


def _check_shards(plan: Plan) -> None:
    if plan.compute.strategy == "fsdp" and plan.optimizer in NEED_WHOLE_MATRICES:
        raise Failed(
            Reason.UNSUPPORTED,
            f"training.optimizer.name: {plan.optimizer} needs whole matrices and does not go with compute.strategy: "
            "fsdp",
            "choose another optimizer, or set compute.strategy to ddp or single",
        )


def make_groups(model: nn.Module, plan: Plan) -> list[Group]:
    """Parameters by their weight decay: matrices and filters by their layer, what has one dimension or none without.

    Raises `Failed(unsupported)` for a layer in `weight_decay_by_layer` that the model does not have.
    """
    layers = [name for name, _ in model.named_modules() if name]
    for name in plan.weight_decay_by_layer:
        _check_layer(name, layers)
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decay = decay_of(name, plan) if parameter.ndim >= 2 else 0.0
            groups.setdefault(decay, []).append(parameter)
    return [{"params": parameters, "weight_decay": decay} for decay, parameters in groups.items()]


def decay_of(name: str, plan: Plan) -> float:
    """The weight decay of the parameter `name`: that of the longest module name that it begins with."""
    own = [layer for layer in plan.weight_decay_by_layer if name.startswith(f"{layer}.")]
    return plan.weight_decay_by_layer[max(own, key=len)] if own else plan.weight_decay


def _check_layer(name: str, layers: list[str]) -> None:
    if name not in layers:
        near = difflib.get_close_matches(name, layers, NAMED_LAYERS, cutoff=0.0)
        raise Failed(
            Reason.UNSUPPORTED,
            f"training.optimizer.weight_decay_by_layer: the model has no layer {name}",
            f"name a module of it: {', '.join(near)} …",
        )


def _muon(groups: list[Group], model: nn.Module, plan: Plan) -> optim.Optimizer:
    """Filters and matrices but for the first and the last, which Jordan leaves to AdamW with norms and biases."""
    outer = {id(one.weight) for _, one in (_first(model), head(model)) if one is not None}
    divided: list[Group] = []
    for group in groups:
        hidden = [one for one in group["params"] if one.ndim >= 2 and id(one) not in outer]
        rest = [one for one in group["params"] if one.ndim < 2 or id(one) in outer]
        divided += [
            {**group, "params": some, "orthogonal": orthogonal}
            for some, orthogonal in ((hidden, True), (rest, False))
            if some
        ]
    return Muon(divided, lr=plan.learning_rate, momentum=plan.momentum, betas=plan.betas)


def _first(model: nn.Module) -> tuple[str, nn.Conv2d | None]:
    """The layer that sees the pixels; a head by itself has none."""
    has_one = any(isinstance(one, nn.Conv2d) for one in model.modules())
    return first_convolution(model) if has_one else ("", None)
