"""Every optimizer against torch's own, the groups of weight decay, and Muon."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn, optim

from tests.training.plans import make_plan
from training_core.contract.errors import Failed
from training_core.optimisation.muon import orthogonalised
from training_core.optimisation.optimizers import decay_of, make_groups, make_optimizer
from training_core.planner.plan import Plan
from training_core.vision.networks import make_model

RATE, DECAY = 0.01, 0.1
ADAM: dict[str, Any] = {"lr": RATE, "betas": (0.8, 0.95)}
PLAIN: dict[str, Callable[[Any], optim.Optimizer]] = {
    "sgd": lambda groups: optim.SGD(groups, lr=RATE, momentum=0.7, nesterov=True),
    "adam": lambda groups: optim.Adam(groups, **ADAM),
    "adamw": lambda groups: optim.AdamW(groups, **ADAM),
    "nadam": lambda groups: optim.NAdam(groups, decoupled_weight_decay=True, **ADAM),
    "radam": lambda groups: optim.RAdam(groups, decoupled_weight_decay=True, **ADAM),
    "adamax": lambda groups: optim.Adamax(groups, **ADAM),
    "adagrad": lambda groups: optim.Adagrad(groups, lr=RATE),
    "adadelta": lambda groups: optim.Adadelta(groups, lr=RATE),
    "rmsprop": lambda groups: optim.RMSprop(groups, lr=RATE, momentum=0.7),
    "adafactor": lambda groups: optim.Adafactor(groups, lr=RATE),
}


def plan_of(name: str, **optimizer: Any) -> Plan:
    wanted = {"name": name, "learning_rate": RATE, "weight_decay": DECAY, "momentum": 0.7, "betas": (0.8, 0.95)}
    return make_plan(optimizer={**wanted, **optimizer})


def network() -> nn.Sequential:
    """Filters in channels-last memory, a norm, and a layer with a bias."""
    torch.manual_seed(3)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.Conv2d(8, 16, 3), nn.Flatten(), nn.Linear(16 * 16, 3)
    )
    return model.to(memory_format=torch.channels_last)


def steps(model: nn.Module, optimizer: optim.Optimizer, count: int = 3) -> nn.Module:
    for seed in range(count):
        images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
        optimizer.zero_grad()
        model(images).square().mean().backward()
        optimizer.step()
    return model


@pytest.mark.parametrize("name", PLAIN)
def test_it_is_the_optimizer_of_torch(name: str) -> None:
    ours, theirs = network(), network()
    matrices = [one for one in theirs.parameters() if one.ndim >= 2]
    rest = [one for one in theirs.parameters() if one.ndim < 2]
    plain = PLAIN[name]([{"params": matrices, "weight_decay": DECAY}, {"params": rest, "weight_decay": 0.0}])
    steps(ours, make_optimizer(ours, plan_of(name)))
    steps(theirs, plain)
    with torch.no_grad():
        moved = [
            float((one - start).abs().max())
            for one, start in zip(ours.parameters(), network().parameters(), strict=True)
        ]
    assert max(moved) > 1e-4
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [*PLAIN, "muon"])
def test_its_state_goes_on_where_it_was(name: str) -> None:
    plan, whole = plan_of(name), network()
    optimizer = make_optimizer(whole, plan)
    steps(whole, optimizer)
    resumed = copy.deepcopy(whole)
    other = make_optimizer(resumed, plan)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    steps(whole, optimizer)
    steps(resumed, other)
    assert all(torch.equal(one, same) for one, same in zip(whole.parameters(), resumed.parameters(), strict=True))


def test_without_momentum_sgd_has_no_nesterov() -> None:
    model = network()
    [group, _] = make_optimizer(model, plan_of("sgd", momentum=0.0)).param_groups
    assert (group["momentum"], group["nesterov"]) == (0.0, False)


def test_norms_and_biases_never_decay() -> None:
    model = make_model("resnet18", channels=3, classes=3)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = {group["weight_decay"]: group["params"] for group in make_groups(model, plan_of("adamw"))}
    assert set(groups) == {DECAY, 0.0}
    assert all(("bn" in names[id(one)] or "bias" in names[id(one)] or "downsample.1" in names[id(one)])
               for one in groups[0.0])  # fmt: skip
    assert all(one.ndim >= 2 for one in groups[DECAY])
    assert sum(len(group) for group in groups.values()) == len(names)


def test_layers_have_a_decay_of_their_own_by_their_longest_name() -> None:
    plan = plan_of("adamw", weight_decay_by_layer={"layer1": 0.2, "layer1.0": 0.3, "fc": 0.0})
    expected = {
        "layer1.1.conv1.weight": 0.2,
        "layer1.0.conv2.weight": 0.3,
        "layer10.conv.weight": DECAY,
        "fc.weight": 0.0,
        "conv1.weight": DECAY,
    }
    assert {name: decay_of(name, plan) for name in expected} == expected
    groups = make_groups(make_model("resnet18", channels=3, classes=3), plan)
    assert {group["weight_decay"] for group in groups} == {DECAY, 0.2, 0.3, 0.0}


def test_an_unknown_layer_is_refused_with_the_nearest_names() -> None:
    model = make_model("resnet18", channels=3, classes=3)
    with pytest.raises(Failed) as failed:
        make_optimizer(model, plan_of("adamw", weight_decay_by_layer={"layr1": 0.0}))
    assert failed.value.reason == "unsupported"
    assert "layr1" in failed.value.message
    assert "layer1" in (failed.value.hint or "")


def test_muon_is_torchs_on_matrices() -> None:
    """Torch's computes in bf16, which moves the smallest singular values a little."""
    torch.manual_seed(1)
    ours = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(16, 24), nn.Linear(24, 8), nn.Linear(8, 3))
    theirs = copy.deepcopy(ours)
    optimizer = make_optimizer(ours, plan_of("muon"))
    hidden = [theirs[2].weight, theirs[3].weight]
    options: dict[str, Any] = {"lr": RATE, "momentum": 0.7, "weight_decay": DECAY, "adjust_lr_fn": "match_rms_adamw"}
    plain = optim.Muon(hidden, **options)  # type: ignore[arg-type]
    before = copy.deepcopy(ours)
    for model, one in ((ours, optimizer), (theirs, plain)):
        torch.manual_seed(2)
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape)
        one.step()
    orthogonal = [len(group["params"]) for group in optimizer.param_groups if group["orthogonal"]]
    assert orthogonal == [2], "the two hidden matrices, and neither the first filters nor the last layer"
    for layer in (2, 3):
        name = f"{layer}.weight"
        step, other = (model.state_dict()[name] - before.state_dict()[name] for model in (ours, theirs))
        assert (step - other).norm() < 0.05 * other.norm()


def test_muon_moves_filters_too_and_learns() -> None:
    model = network()
    optimizer = make_optimizer(model, plan_of("muon", weight_decay=0.0))
    images, wanted = torch.randn(8, 3, 8, 8), torch.arange(8) % 3
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(images), wanted)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]
    assert "momentum_buffer" in optimizer.state[model.get_parameter("2.weight")]
    assert "exp_avg" in optimizer.state[model.get_parameter("0.weight")]


def test_orthogonalised_has_singular_values_near_one() -> None:
    for shape in ((8, 30), (30, 8)):
        values = torch.linalg.svdvals(orthogonalised(torch.randn(shape)))
        assert values.min() > 0.5
        assert values.max() < 1.3


@pytest.mark.parametrize("name", ["muon", "adafactor"])
def test_what_needs_whole_matrices_refuses_shards(name: str) -> None:
    plan = plan_of(name)
    sharded = replace(plan, compute=plan.compute.model_copy(update={"strategy": "fsdp"}))
    with pytest.raises(Failed, match="whole matrices"):
        make_optimizer(network(), sharded)
