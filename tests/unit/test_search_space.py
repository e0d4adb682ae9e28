"""Search spaces: what is refused and where, how a point is written, and how it becomes the spec of a trial."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from api.bodies.spaces import space_faults
from api.fault_entries import entries_of
from training_core.contract.spec import JobSpec, Scalar
from training_core.contract.spec.points import canonical, count, counted, key, order
from training_core.contract.spec.space import apply

RATE = "training.optimizer.learning_rate"
LOG = {"type": "float", "low": 1e-4, "high": 1.0, "log": True}
BATCH = {"type": "int", "low": 32, "high": 128, "step": 32}
NAMES = {"type": "categorical", "choices": ["sgd", "adamw"]}
MOMENTUM = {"type": "float", "low": 0.0, "high": 0.9, "step": 0.3, "when": {"training.optimizer.name": ["sgd"]}}
Values = dict[str, Scalar]
SPACE = {"training.optimizer.name": NAMES, "training.optimizer.momentum": MOMENTUM, "training.batch_size": BATCH}


def spec_of(space: dict[str, Any], **search: Any) -> JobSpec:
    document = {
        "task": "image-classification",
        "dataset": {"uri": "file:///data/pets/"},
        "search": {"space": space, **search},
    }
    return JobSpec.model_validate(document)


def refusal(space: dict[str, Any], **search: Any) -> list[dict[str, Any]]:
    return entries_of(list(space_faults(spec_of(space, **search))))


@pytest.mark.parametrize(
    ("space", "pointer", "words"),
    [
        ({"training.optimizer.learnig_rate": LOG}, "/training.optimizer.learnig_rate", "no such field"),
        ({"training.optimizer.betas.2": LOG}, "/training.optimizer.betas.2", "no such field"),
        ({"training.seed": {"type": "int", "low": 0, "high": 10**400}}, "/training.seed/high", "less than"),
        ({"training.optimizer": NAMES}, "/training.optimizer/choices/0", "does not take this"),
        ({"dataset.split.seed": BATCH}, "/dataset.split.seed", "dataset.split is the same for all trials"),
        ({"priority": BATCH}, "/priority", "the same for all trials"),
        ({RATE: {**LOG, "high": 1000.0}}, f"/{RATE}/high", "less than or equal to 100"),
        ({"training.batch_size": {"type": "int", "low": 0, "high": 8}}, "/training.batch_size/low", "greater than"),
        ({"training.epochs": {"type": "float", "low": 1.0, "high": 9.0}}, "/training.epochs", "valid integer"),
        ({"training.schedule.name": NAMES}, "/training.schedule.name/choices/0", "'cosine'"),
        ({"training.batch_size": {**NAMES, "choices": [32, "64"]}}, "/training.batch_size/choices/1", "another type"),
        ({RATE: {**NAMES, "choices": [True]}}, f"/{RATE}/choices/0", "another type"),
        ({RATE: {**LOG, "when": {"training.epochs": [3]}}}, f"/{RATE}/when/training.epochs", "parameter of the space"),
        (
            {"training.label_smoothing": {**MOMENTUM, "when": {"training.optimizer.name": ["muon"]}}, **SPACE},
            "/training.label_smoothing/when/training.optimizer.name/0", "never has this value",
        ),
        ({RATE: LOG, "training.label_smoothing": {**MOMENTUM, "when": {RATE: [0.1]}}},
         f"/training.label_smoothing/when/{RATE}", "no values to name"),
        ({"training.augmentation": {**NAMES, "choices": ["none", "light"]},
          "training.augmentation.mixup": MOMENTUM | {"when": {}}}, "/training.augmentation.mixup", "a part of"),
        ({"model.trainable": {"type": "categorical", "choices": ["head"]}}, "", "needs a trained trunk"),
    ],
)  # fmt: skip
def test_a_space_that_no_trial_can_have_is_refused_where_it_is_wrong(
    space: dict[str, Any], pointer: str, words: str
) -> None:
    entries = refusal(space)
    assert entries[0]["pointer"] == f"/search/space{pointer}"
    assert words in entries[0]["message"]


def test_a_misspelt_path_is_told_the_field_that_was_meant() -> None:
    [entry] = refusal({"training.optimizer.learnig_rate": LOG})
    assert entry["did_you_mean"] == RATE
    assert "training.optimizer.momentum" in entry["allowed"]


def test_conditions_in_a_circle_are_refused() -> None:
    one = {**NAMES, "when": {"training.schedule.name": ["cosine"]}}
    other = {"type": "categorical", "choices": ["cosine"], "when": {"training.optimizer.name": ["sgd"]}}
    entries = refusal({"training.optimizer.name": one, "training.schedule.name": other})
    assert {entry["message"] for entry in entries} == {"Conditions wait for each other in a circle"}


@pytest.mark.parametrize(
    ("search", "pointer", "words"),
    [
        ({"points": [{}, {"training.batch": 1}]}, "/search/points/1/training.batch", "no parameter"),
        ({"points": [{"training.batch_size": 100}]}, "/search/points/0/training.batch_size", "not on a step of 32"),
        ({"points": [{"training.batch_size": 256}]}, "/search/points/0/training.batch_size", "outside 32 to 128"),
        ({"points": [{"training.optimizer.name": "lion"}]}, "/search/points/0/training.optimizer.name", "none of"),
        ({"sampler": "cma_es"}, "/search/sampler", "categorical"),
        ({"sampler": "nsga2"}, "/search/sampler", "condition"),
        ({"pruner": "halving", "objective": [{"metric": "validation/loss"}, {"metric": "device_seconds"}]},
         "/search/pruner", "one objective"),
        ({"pruner": "median", "objective": {"metric": "test/accuracy"}}, "/search/pruner", "not measured"),
        ({"population": {"size": 4}}, "/search/space/training.optimizer.name", "stays as it is"),
    ],
)  # fmt: skip
def test_a_search_that_its_parts_cannot_do_is_refused(search: dict[str, Any], pointer: str, words: str) -> None:
    entries = refusal(SPACE, **search)
    assert entries[0]["pointer"] == pointer
    assert words in entries[0]["message"]


def test_a_grid_needs_steps_and_an_end() -> None:
    [entry] = refusal({**SPACE, RATE: LOG}, sampler="grid")
    assert entry["pointer"] == f"/search/space/{RATE}"
    many = {"type": "int", "low": 1, "high": 60_000}
    [entry] = refusal({"training.batch_size": many}, sampler="grid")
    assert entry["pointer"] == "/search/sampler"


def test_a_space_of_parts_that_need_each_other_is_taken() -> None:
    space = {
        "model.pretrained": {"type": "categorical", "choices": [False, True]},
        "model.trainable": {"type": "categorical", "choices": ["all", "head"], "when": {"model.pretrained": [True]}},
        "training.ema_decay": {"type": "categorical", "choices": [None, 0.99, "auto"]},
        "training.augmentation": {"type": "categorical", "choices": ["none", "light"]},
        "training.optimizer.betas.1": {"type": "float", "low": 0.9, "high": 0.999},
        "training.optimizer.weight_decay_by_layer.layer1.0": LOG,
    }
    assert list(space_faults(spec_of(space, points=[{"model.pretrained": True}]))) == []


def test_a_point_is_written_in_one_way() -> None:
    space = spec_of({**SPACE, RATE: LOG}).search.space  # type: ignore[union-attr]
    assert order(space) == (
        "training.batch_size", RATE, "training.optimizer.name", "training.optimizer.momentum"
    )  # fmt: skip
    adam: Values = {
        "training.optimizer.name": "adamw",
        "training.optimizer.momentum": 0.3,
        "training.batch_size": 64.0,
        RATE: 1,
    }
    written = canonical(space, adam)
    assert written == {"training.batch_size": 64, RATE: 1.0, "training.optimizer.name": "adamw"}
    assert [type(value) for value in written.values()] == [int, float, str]
    sgd: Values = {**adam, "training.optimizer.name": "sgd", "training.optimizer.momentum": 0.1 + 0.2}
    assert canonical(space, sgd)["training.optimizer.momentum"] == 0.3
    assert key(space, adam) == key(space, dict(reversed(written.items())))
    assert key(space, adam) != key(space, sgd)
    with pytest.raises(ValueError, match="none of the choices"):
        canonical(space, {"training.optimizer.name": True})


def test_one_and_true_are_two_choices() -> None:
    space = spec_of({"compute.compile": {"type": "categorical", "choices": [True, 1, "1", None]}}).search.space  # type: ignore[union-attr]
    assert len({key(space, {"compute.compile": value}) for value in (True, 1, "1", None)}) == 4


def test_the_points_of_a_space_are_counted_with_its_conditions() -> None:
    space = spec_of(SPACE).search.space  # type: ignore[union-attr]
    assert [count(parameter) for parameter in space.values()] == [2, 4, 4]
    points = counted(space) or []
    assert len(points) == 4 * (4 + 1)
    assert len({key(space, point) for point in points}) == 20
    assert counted(spec_of({RATE: LOG}).search.space) is None  # type: ignore[union-attr]


def test_a_trial_trains_by_the_spec_of_the_job_with_its_values_in_their_places() -> None:
    spec = spec_of(SPACE, trials=3)
    values: Values = {
        RATE: 0.1, "training.augmentation": "light", "training.optimizer.betas.0": 0.8, "training.ema_decay": None,
        "training.optimizer.weight_decay_by_layer.layer1.0": 0.5, "training.resizing.start": 0.6,
    }  # fmt: skip
    trial = apply(spec, values)
    assert trial.search is None
    assert trial.dataset == spec.dataset
    training = trial.training
    assert (training.optimizer.learning_rate, training.optimizer.betas) == (0.1, (0.8, 0.999))
    assert training.optimizer.weight_decay_by_layer == {"layer1.0": 0.5}
    assert (training.augmentation.preset, training.ema_decay) == ("light", None)
    assert getattr(training.resizing, "start", None) == 0.6
    assert apply(spec, {}) == spec.model_copy(update={"search": None})
    with pytest.raises(ValidationError):
        apply(spec, {"training.batch_size": 0})
