"""What the API says of a spec without asking anybody: where it is wrong, and what will disappoint."""

from __future__ import annotations

import json
from typing import Any

import pytest

from api.advice import warnings_for
from api.bodies.reading import Refused, read
from api.profiles import BUILT_IN, Profiles
from training_core.contract.spec import JobSpec

SPEC: dict[str, Any] = {"task": "image-classification", "dataset": {"uri": "file:///data/pets/"}}


def faults(change: dict[str, Any]) -> list[dict[str, Any]]:
    with pytest.raises(Refused) as caught:
        read(json.dumps({**SPEC, **change}).encode(), JobSpec)
    assert caught.value.status == 422
    return caught.value.entries


@pytest.mark.parametrize(
    ("change", "pointer", "suggestion"),
    [
        ({"training": {"resizing": {"strat": 0.5}}}, "/training/resizing/strat", "start"),
        ({"training": {"resizing": "atuo"}}, "/training/resizing", "auto"),
        ({"training": {"early_stopping": {"metrik": "x"}}}, "/training/early_stopping/metrik", "metric"),
        ({"training": {"schedule": {"name": "onecycle"}}}, "/training/schedule/name", "one_cycle"),
        ({"training": {"optimizer": {"name": "adammw"}}}, "/training/optimizer/name", "adamw"),
        ({"compute": {"strategy": "dpp"}}, "/compute/strategy", "ddp"),
        ({"compute": {"compile": "atuo"}}, "/compute/compile", "auto"),
        ({"budget": {"max_costs": "1"}}, "/budget/max_costs", "max_cost"),
        ({"search": {"space": {"training.epochs": {"type": "integr", "low": 1, "high": 2}}}},
         "/search/space/training.epochs/type", "int"),
        ({"exports": ["onnx", "onx_int8"]}, "/exports/1", "onnx_int8"),
    ],
)  # fmt: skip
def test_a_misspelt_name_is_found_where_it_stands(change: dict[str, Any], pointer: str, suggestion: str) -> None:
    [entry] = faults(change)
    assert (entry["pointer"], entry["did_you_mean"]) == (pointer, suggestion)


@pytest.mark.parametrize(
    ("change", "pointers"),
    [
        ({"training": {"resizing": {"start": 5}}}, ["/training/resizing/start"]),
        ({"training": {"distillation": {}}}, ["/training/distillation/teacher"]),
        ({"training": {"optimizer": {"betas": [0.9, 2]}}}, ["/training/optimizer/betas/1"]),
        (
            {"training": {"optimizer": {"weight_decay_by_layer": {"fc": -1, "a b": 0}}}},
            ["/training/optimizer/weight_decay_by_layer/fc", "/training/optimizer/weight_decay_by_layer/a b"],
        ),
        ({"training": {"optimizer": "adam"}}, ["/training/optimizer"]),
        ({"exports": ["onnx", "onnx"]}, ["/exports"]),
        ({"labels": {"a b": "c"}}, ["/labels/a b"]),
        ({"compute": {"micro_batch_size": 0}}, ["/compute/micro_batch_size"]),
        ({"budget": {"max_cost": "much"}}, ["/budget/max_cost"]),
    ],
)
def test_a_wrong_value_is_found_where_it_stands(change: dict[str, Any], pointers: list[str]) -> None:
    found = faults(change)
    assert [entry["pointer"] for entry in found] == pointers
    assert all("instance of" not in entry["message"] for entry in found)  # the names of our classes mean nothing


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (
            {"training": {"optimizer": {"learning_rate": 0.1, "learning_rate_test": True}}},
            "training.optimizer.learning_rate_test",
        ),
        (
            {"training": {"early_stopping": {"metric": "validation/accuracy", "target": 90}}},
            "training.early_stopping.target",
        ),
        ({"training": {"early_stopping": {"target": -1}}}, "training.early_stopping.target"),
        ({"training": {"schedule": {"name": "cosine", "factor": 0.5}}}, "training.schedule.factor"),
        ({"training": {"batch_size": 8}, "compute": {"micro_batch_size": 16}}, "compute.micro_batch_size"),
        ({"compute": {"profile": "cpu", "precision": "bf16"}}, "compute.precision"),
        ({"compute": {"profile": "gpu", "sync_batch_norm": True}}, "compute.sync_batch_norm"),
        ({"compute": {"strategy": "single", "gradient_compression": "fp16"}}, "compute.gradient_compression"),
        ({"budget": {"max_cost": "5"}}, "budget.max_cost"),
    ],
)
def test_what_will_disappoint_is_named(change: dict[str, Any], field: str) -> None:
    [warning] = warnings_for(JobSpec.model_validate({**SPEC, **change}), Profiles(BUILT_IN))
    assert warning.startswith(f"{field} ")


def test_what_is_in_order_is_not_warned_of() -> None:
    fine: dict[str, Any] = {
        "training": {
            "early_stopping": {"metric": "validation/accuracy", "target": 0.9},
            "schedule": {"name": "plateau", "factor": 0.5},
            "optimizer": {"learning_rate_test": True},
        },
        "compute": {"profile": "gpu-2", "gradient_compression": "fp16", "sync_batch_norm": True, "precision": "bf16"},
        "budget": {"max_device_hours": 1},
    }
    assert warnings_for(JobSpec.model_validate({**SPEC, **fine}), Profiles(BUILT_IN)) == []
