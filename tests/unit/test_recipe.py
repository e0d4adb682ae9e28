"""What `auto` stands for: facts about a job, and what is chosen for them."""

from __future__ import annotations

from typing import Any

import pytest

from training_core.contract.spec import JobSpec, Model
from training_core.planner.plan import Plan, choose_plan
from training_core.planner.recipe import FEATURES, LEAST_BATCH_FOR_BATCH_NORM, DataFacts

FROM_WEIGHTS = {"weights": "ckpt_00000000000000000000000001"}
HEAD = FROM_WEIGHTS | {"trainable": "head"}
RESNET = {"name": "resnet50"}


def plan_of(images: int, side: int, *, model: dict[str, Any] | None = None, **training: Any) -> Plan:
    spec = JobSpec.model_validate(
        {
            "task": "image-classification",
            "dataset": {"uri": "s3://pets/"},
            "model": model or {},
            "training": training,
        }
    )
    weights_model = "small_cnn" if spec.model.weights and spec.model.name == "auto" else None
    return choose_plan(spec, DataFacts(images, 10, 3, side, "as stored"), device="cpu", weights_model=weights_model)


# images, side, model given -> network, batch, epochs, optimizer, rate, decay, augmentation, smoothing, resizing
CHOICES = [
    (300, 28, {}, "small_resnet", 32, 40, "adamw", 6e-3, 0.05, "light", 0.0, False),
    (5_400, 28, {}, "small_resnet", 64, 20, "adamw", 6e-3, 0.05, "light", 0.0, False),
    (60_000, 28, {}, "small_resnet", 256, 12, "adamw", 6e-3, 0.15, "flip", 0.1, False),
    (60_000, 28, FROM_WEIGHTS, "small_cnn", 256, 10, "adamw", 3e-3, 0.05, "none", 0.0, False),
    (60_000, 28, HEAD, "small_cnn", 256, 20, "adamw", 5 / 64, 0.05, "none", 0.0, False),
    (5_000, 224, {}, "mobilenet_v3_small", 64, 60, "adamw", 1e-3, 0.05, "standard", 0.0, True),
    (5_000, 224, {"pretrained": True}, "mobilenet_v3_small", 64, 10, "adamw", 5e-4, 0.05, "flip", 0.0, False),
    (50_000, 224, RESNET, "resnet50", 256, 30, "adamw", 1e-3, 0.05, "light", 0.0, True),
    (1_281_167, 224, RESNET, "resnet50", 256, 16, "sgd", 0.1, 5e-5, "light", 0.1, True),
]


@pytest.mark.parametrize("case", CHOICES, ids=lambda case: f"{case[0]} images of {case[1]} px, {case[3]}")
def test_the_choices(case: tuple[Any, ...]) -> None:
    images, side, model, *chosen = case
    plan = plan_of(images, side, model=model)
    assert [
        plan.model, plan.batch_size, plan.epochs, plan.optimizer, plan.learning_rate, plan.weight_decay,
        plan.augmentation, plan.label_smoothing, plan.resizing is not None,
    ] == chosen  # fmt: skip


def test_every_choice_has_a_reason_and_what_is_pinned_is_as_requested() -> None:
    automatic, pinned = plan_of(60_000, 28), plan_of(60_000, 28, epochs=3, ema_decay=None)
    for key in automatic.report().resolved:
        if not key.startswith("compute.") and key != "model.trainable":
            assert len(automatic.reasons[key].split()) >= 2, key
    assert (pinned.epochs, pinned.ema_decay) == (3, None)
    assert pinned.reasons["training.epochs"] == pinned.reasons["training.ema_decay"] == "as requested"


def test_averages_go_over_a_tenth_of_the_steps() -> None:
    for images, epochs in ((5_400, 8), (60_000, 12), (1_281_167, 16)):
        plan = plan_of(images, 28, epochs=epochs)
        assert plan.ema_decay is not None
        assert 1 / (1 - plan.ema_decay) == pytest.approx(plan.total_steps / 10, rel=0.01)
    assert plan_of(60, 28, epochs=3).ema_decay is None
    assert plan_of(60_000, 28, model=HEAD).ema_decay is None


def test_small_batches_get_the_network_without_batch_norm() -> None:
    assert plan_of(300, 28, batch_size=LEAST_BATCH_FOR_BATCH_NORM).model == "small_resnet"
    assert plan_of(300, 28, batch_size=LEAST_BATCH_FOR_BATCH_NORM - 1).model == "small_cnn"


def test_few_epochs_take_no_augmentation_that_would_slow_them_down() -> None:
    assert [plan_of(60_000, 28, epochs=epochs).augmentation for epochs in (7, 8, 19, 20)] == [
        "none", "flip", "flip", "light",
    ]  # fmt: skip


def test_every_network_says_what_its_last_layer_is_given() -> None:
    names = Model.model_fields["name"].annotation
    assert set(FEATURES) == set(names.__args__) - {"auto"}  # type: ignore[union-attr]
