"""Few steps are judged by statistics of their own weights; and by what a model is worth that has learned nothing."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.engine.few_photographs import draw
from tests.training.inside import train_inside
from tests.training.plans import make_plan
from tests.training.running import Run, make_images, make_run
from training_core.data.sampler import share
from training_core.engine import batch_statistics
from training_core.engine.largest_class import ALERT, compare
from training_core.engine.training import Training
from training_core.planner.plan import Plan
from training_core.preflight.short_run import short_training
from training_core.runtime.launch import prepare
from training_core.tasks.image_classification.learner import Materials, gather
from training_core.vision.dataset_view import Chosen
from training_core.vision.networks import MOMENTUM, make_model, norms_of, remember_less

RESNET = {"name": "small_resnet"}


def prepared(run: Run) -> Materials:
    assert prepare(run.dir) == 0
    return gather(run.spec, Chosen(run.dir.read_prepared()), None, lambda: False)


def plan_of(materials: Materials, model: str = "small_resnet", **training: Any) -> Plan:
    images = len(materials.data.splits["train"])
    return make_plan(images=images, image_size=16, model=model, **training)


def statistics(training: Training) -> dict[str, torch.Tensor]:
    return {name: one.clone() for name, one in training.network.named_buffers()}


def test_they_are_the_means_over_the_training_images(tmp_path: Path, images: Path) -> None:
    run = make_run(tmp_path, f"file://{images}", model=RESNET)
    materials = prepared(run)
    with short_training(materials, plan_of(materials), run.dir, torch.device("cpu")) as training:
        norm, seen = norms_of(training.network)[0], []
        hook = norm.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach().clone()))
        batch_statistics.take_anew(training)
        hook.remove()
    [values] = seen  # all 45 training images are one batch
    assert len(values) == len(materials.data.splits["train"])
    assert norm.running_mean is not None and norm.running_var is not None  # noqa: PT018
    assert torch.allclose(norm.running_mean, values.mean((0, 2, 3)), atol=1e-5)
    assert torch.allclose(norm.running_var, values.var((0, 2, 3)), atol=1e-4)
    assert norm.momentum == MOMENTUM
    assert int(norm.num_batches_tracked or 0) == 0
    assert training.network.training


def test_a_second_time_gives_the_same_to_the_bit(tmp_path: Path, images: Path) -> None:
    run = make_run(tmp_path, f"file://{images}", model=RESNET)
    materials = prepared(run)
    with short_training(materials, plan_of(materials), run.dir, torch.device("cpu")) as training:
        batch_statistics.take_anew(training)
        first = statistics(training)
        batch_statistics.take_anew(training)
        again = statistics(training)
    assert all(torch.equal(first[name], again[name]) for name in first)


@pytest.mark.parametrize(
    ("model", "epochs"), [("small_resnet", 10_000), ("small_cnn", 10)], ids=["a long training", "no batch norm"]
)
def test_others_keep_what_they_have(tmp_path: Path, images: Path, model: str, epochs: int) -> None:
    run = make_run(tmp_path, f"file://{images}", model={"name": model})
    materials = prepared(run)
    with short_training(materials, plan_of(materials, model, epochs=epochs), run.dir, torch.device("cpu")) as training:
        before = statistics(training)
        batch_statistics.take_anew(training)
        after = statistics(training)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_two_ranks_end_with_the_same(tmp_path: Path, images: Path) -> None:
    training = {"epochs": 2, "batch_size": 12}
    run = make_run(tmp_path, f"file://{images}", model=RESNET, devices=2, training=training)
    assert run.finish() == 0, run.log()
    assert run.of_kind("plan_chosen")[0].world_size == 2
    assert all(math.isfinite(value) for _, value in run.series("validation/loss"))
    rows = np.arange(11)
    assert len(share(rows[:10], 0, 2)) == len(share(rows[:10], 1, 2)), "as many batches on each rank"


def test_mobilenets_remember_less_where_steps_are_few() -> None:
    few, many = (make_model("mobilenet_v3_small", channels=3, classes=2) for _ in range(2))
    assert {norm.momentum for norm in norms_of(few)} == {0.01}
    remember_less(few, 500)
    remember_less(many, 20_000)
    assert {norm.momentum for norm in norms_of(few)} == {MOMENTUM}
    assert {norm.momentum for norm in norms_of(many)} == {0.01}


@pytest.mark.parametrize(
    ("labels", "accuracy", "better"),
    [
        ([0] * 50 + [1] * 50, 0.54, False),
        ([0] * 50 + [1] * 50, 0.56, True),
        ([0] * 9 + [1], 0.9, False),
        ([0] * 9 + [1], 1.0, True),
        ([0] * 50 + [1] * 50, math.nan, False),
    ],
)
def test_better_is_by_a_standard_error(labels: list[int], accuracy: float, better: bool) -> None:
    compared = compare(np.array(labels), accuracy)
    assert compared is not None
    assert compared.better is better


def test_one_class_or_none_compares_with_nothing() -> None:
    assert compare(np.array([2, 2]), 1.0) is None
    assert compare(np.array([], np.int64), 1.0) is None


def test_who_learns_nothing_is_told(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    for name, count in (("cats", 30), ("dogs", 20)):
        (tmp_path / "noise" / name).mkdir(parents=True)
        for number in range(count):
            noise = random.integers(0, 256, (16, 16), np.uint8)
            Image.fromarray(noise).save(tmp_path / "noise" / name / f"{number}.png")
    run = make_run(tmp_path, f"file://{tmp_path}/noise", training={"epochs": 1, "optimizer": {"learning_rate": 1e-9}})
    assert train_inside(run) == 0, run.outcome
    [summary] = run.of_kind("summary")
    [alert] = [one for one in run.of_kind("alert_raised") if one.alert == ALERT]
    assert summary.no_better_than_largest_class
    assert alert.data["largest_class_share"] == summary.largest_class_share
    assert alert.data["largest_class"] in alert.message


def test_who_learns_is_not(tmp_path: Path) -> None:
    images = make_images(tmp_path / "stripes")
    run = make_run(tmp_path, f"file://{images}", training={"epochs": 10})
    assert train_inside(run) == 0, run.outcome
    [summary] = run.of_kind("summary")
    assert not summary.no_better_than_largest_class
    assert summary.largest_class_share == pytest.approx(1 / 3, abs=0.02)
    assert ALERT not in [one.alert for one in run.of_kind("alert_raised")]


@pytest.mark.long
def test_auto_learns_few_large_pictures(tmp_path: Path) -> None:
    """140 of 128 px in nine classes: one in four is of the largest, and so many were right before."""
    pictures = draw(tmp_path / "drawn")
    split = {"validation": 0.1, "test": 0.5}
    run = make_run(
        tmp_path, f"file://{pictures}", model={}, dataset={"split": split},
        training={"epochs": "auto", "batch_size": "auto", "image_size": 128, "early_stopping": {}},
    )  # fmt: skip
    assert run.finish(timeout=600) == 0, run.log()
    [summary] = run.of_kind("summary")
    assert run.of_kind("plan_chosen")[0].resolved["model.name"] == "mobilenet_v3_small"
    assert summary.metrics["test/accuracy"] > 0.4
