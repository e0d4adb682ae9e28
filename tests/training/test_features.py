"""A frozen trunk sees each image once, and the head trains on what came out."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tests.training.running import make_run
from training_core.contract.errors import Failed, Reason, StopRequested
from training_core.distributed.ranks import Ranks
from training_core.optimisation.layers import first_convolution, head
from training_core.planner.recipe import FEATURES
from training_core.tasks.image_classification import features
from training_core.tasks.image_classification.features import Trunk, features_of
from training_core.vision.data_loaders import Statistics, measure
from training_core.vision.dataset_view import Chosen
from training_core.vision.networks import make_model
from training_core.vision.prepare import prepare
from training_core.vision.transforms import Recipe, Renderer

ALONE = Ranks(0, 1, torch.device("cpu"))


@pytest.fixture
def data(tmp_path: Path, images: Path) -> Chosen:
    run = make_run(tmp_path, f"file://{images}")
    return Chosen(prepare(run.spec, never, lambda _: None))


@pytest.fixture
def statistics(data: Chosen) -> Statistics:
    return measure(data.pack, data.splits["train"], data.meta.image_size)


def never() -> bool:
    return False


def network(name: str = "mobilenet_v3_small") -> nn.Module:
    torch.manual_seed(3)
    return make_model(name, channels=1, classes=3)


def count_images(model: nn.Module) -> Counter[str]:
    seen: Counter[str] = Counter()

    def count(_: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        seen["images"] += len(given[0])

    first_convolution(model)[1].register_forward_pre_hook(count)
    return seen


def test_each_image_passes_the_trunk_once(data: Chosen, statistics: Statistics) -> None:
    model = network()
    seen = count_images(model)
    first = features_of(Trunk(model), data, statistics, ALONE, never)
    again = features_of(Trunk(model), data, statistics, ALONE, never)
    assert seen["images"] == len(data.pack) == len(first)
    assert np.array_equal(first, again)


def test_the_head_on_features_is_the_network_on_images(data: Chosen, statistics: Statistics) -> None:
    model = network()
    trunk = Trunk(model)
    values = features_of(trunk, data, statistics, ALONE, never)
    rows = data.splits["validation"]
    side = data.meta.image_size
    pictures = np.empty((len(rows), side, side, 1), np.uint8)
    Renderer(data.pack, Recipe(data.pack.folder))(rows, 0, pictures)
    mean, deviation = statistics.mean[0], statistics.deviation[0]
    images = (torch.from_numpy(pictures).permute(0, 3, 1, 2).float() - mean) / deviation
    with torch.no_grad():
        torch.testing.assert_close(trunk.head(torch.from_numpy(values[rows])), model(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "width"), FEATURES.items())
def test_the_plan_knows_the_width_of_each_network(name: str, width: int) -> None:
    with torch.device("meta"):
        assert head(make_model(name, channels=3, classes=2))[1].in_features == width


def test_only_the_head_learns_and_batch_norm_stays(data: Chosen) -> None:
    model = network()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trunk = Trunk(model)
    assert {name for name, one in model.named_parameters() if one.requires_grad} == {
        "classifier.3.weight",
        "classifier.3.bias",
    }
    trunk(torch.randn(4, 1, 32, 32))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def other_weights(model: nn.Module, statistics: Statistics) -> Statistics:
    with torch.no_grad():
        next(model.parameters()).mul_(2)
    return statistics


def other_normalisation(model: nn.Module, statistics: Statistics) -> Statistics:
    return Statistics([1.0], [2.0])


def other_head(model: nn.Module, statistics: Statistics) -> Statistics:
    with torch.no_grad():
        list(model.parameters())[-1].add_(1)
    return statistics


@pytest.mark.parametrize(
    ("change", "shared"), [(other_weights, False), (other_normalisation, False), (other_head, True)]
)
def test_a_file_is_shared_exactly_when_it_would_be_the_same(
    data: Chosen, statistics: Statistics, change: Any, shared: bool
) -> None:
    features_of(Trunk(network("small_cnn")), data, statistics, ALONE, never)
    model = network("small_cnn")
    seen = count_images(model)
    features_of(Trunk(model), data, change(model, statistics), ALONE, never)
    assert (seen["images"] == 0) is shared
    assert len(list((data.pack.folder / features.FOLDER).glob("*.npy"))) == (1 if shared else 2)


def test_trials_that_ask_together_make_it_once(data: Chosen, statistics: Statistics) -> None:
    models = [network("small_cnn") for _ in range(4)]
    counts = [count_images(model) for model in models]
    threads = [
        threading.Thread(target=features_of, args=(Trunk(model), data, statistics, ALONE, never)) for model in models
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(seen["images"] for seen in counts) == len(data.pack)


def test_a_stop_leaves_nothing_that_could_be_taken_for_features(data: Chosen, statistics: Statistics) -> None:
    asked = iter([False, True])
    with pytest.raises(StopRequested):
        features_of(Trunk(network("small_cnn")), data, statistics, ALONE, lambda: next(asked))
    assert list((data.pack.folder / features.FOLDER).glob("*.npy")) == []
    assert len(features_of(Trunk(network("small_cnn")), data, statistics, ALONE, never)) == len(data.pack)


def test_a_full_disk_is_named_before_the_work(
    data: Chosen, statistics: Statistics, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = network("small_cnn")
    seen = count_images(model)
    usage = type("Usage", (), {"free": 1000})()
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(Failed, match="MiB are free") as raised:
        features_of(Trunk(model), data, statistics, ALONE, never)
    assert raised.value.reason is Reason.NO_SPACE
    assert seen["images"] == 0


def test_a_job_trains_the_head_of_another_jobs_model(tmp_path: Path, images: Path, weights: str) -> None:
    model = {"weights": weights, "trainable": "head"}
    run = make_run(tmp_path, f"file://{images}", training={"epochs": 4}, model=model, job_id="second")
    assert run.finish() == 0, run.log()
    [plan] = run.of_kind("plan_chosen")
    assert plan.resolved["model.name"] == "small_cnn"
    assert plan.resolved["model.trainable"] == "head"
    assert plan.resolved["training.augmentation.preset"] == "none"
    assert weights in plan.reasons["model.weights"]
    before = load_file(run.file(f"{weights}/model.safetensors"))
    after = load_file(run.file(f"{run.last_checkpoint().path}/model.safetensors"))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    last = head(make_model("small_cnn", channels=1, classes=3))[0]
    assert changed == {f"{last}.weight", f"{last}.bias"}
    assert after.keys() == before.keys()
    [summary] = run.of_kind("summary")
    assert summary.metrics["test/accuracy"] > 0.5


@pytest.mark.long
def test_two_ranks_make_the_features_together_and_a_stop_resumes(tmp_path: Path, images: Path, weights: str) -> None:
    model = {"weights": weights, "trainable": "head"}
    alone = make_run(tmp_path, f"file://{images}", model=model, job_id="alone")
    assert alone.finish() == 0, alone.log()
    [made] = (alone.dir.read_prepared().folder / features.FOLDER).glob("*.npy")
    by_one = np.load(made)
    made.unlink()
    both = make_run(tmp_path, f"file://{images}", model=model, job_id="both", devices=2)
    assert both.finish() == 0, both.log()
    np.testing.assert_allclose(np.load(made), by_one, rtol=1e-4, atol=1e-5)
    for (step, one), (same_step, other) in zip(alone.series("train/loss"), both.series("train/loss"), strict=True):
        assert step == same_step
        assert one == pytest.approx(other, rel=1e-3)
