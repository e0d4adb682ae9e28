"""Jobs that start from the weights of others."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.training.conftest import S3
from tests.training.running import NOBODYS, Run, make_images, make_run
from training_core.vision.networks import make_model


def refused(run: Run, reason: str, *words: str) -> None:
    assert run.finish() == 1, run.log()
    outcome = run.outcome
    assert (outcome.reason, outcome.phase) == (reason, "preparing"), run.log()
    for word in words:
        assert word in (outcome.message or "")


def test_other_classes_get_a_new_head_and_the_normalisation_stays(tmp_path: Path, weights: str) -> None:
    images = make_images(tmp_path / "four", classes=4)
    model = {"weights": weights}
    run = make_run(tmp_path, f"file://{images}", training={"epochs": 1}, model=model, job_id="second")
    assert run.finish() == 0, run.log()
    [plan] = run.of_kind("plan_chosen")
    assert plan.resolved["model.name"] == "small_cnn"
    assert plan.reasons["model.name"] == "the network of model.weights"
    assert "the last layer" in plan.reasons["model.weights"]
    assert "trained weights" in plan.reasons["training.optimizer.learning_rate"]
    kept = [
        run.file(f"{path}/manifest.json").read_text().partition('"preprocessing"')[2].partition("}")[0]
        for path in (weights, run.last_checkpoint().path)
    ]
    assert kept[0] == kept[1]


@pytest.mark.long
def test_a_model_from_weights_is_better_after_one_epoch(tmp_path: Path, images: Path, weights: str) -> None:
    accuracy = {}
    for name, model in (("nothing", {"name": "small_cnn"}), ("weights", {"weights": weights})):
        run = make_run(tmp_path, f"file://{images}", training={"epochs": 1}, model=model, job_id=name)
        assert run.finish() == 0, run.log()
        accuracy[name] = run.of_kind("summary")[0].metrics["validation/loss"]
    assert accuracy["weights"] < accuracy["nothing"] / 2


@pytest.mark.parametrize("trainable", [pytest.param("all", marks=pytest.mark.long), "head"])
def test_a_resumed_training_needs_its_origin_no_more(
    tmp_path: Path, images: Path, weights: str, trainable: str
) -> None:
    changes: dict[str, Any] = {"model": {"weights": weights, "trainable": trainable}, "training": {"epochs": 2000}}
    run = make_run(tmp_path, f"file://{images}", job_id="second", **changes)
    with run.start() as process:
        while not run.dir.events.exists() or "checkpoint_saved" not in run.kinds():
            assert process.poll() is None, run.log()
        run.dir.request_stop()
        assert process.wait(120) == 0
    shutil.rmtree(run.file("jobs/first"))
    saved = run.last_checkpoint()
    again = make_run(tmp_path, f"file://{images}", job_id="second", attempt=2, resume_from=saved.path, **changes)
    with again.start() as process:
        while not again.dir.events.exists() or "first_step" not in again.kinds():
            assert process.poll() is None, again.log()
        again.dir.request_stop()
        assert process.wait(120) == 0
    assert again.of_kind("started")[0].resumed_from_step == saved.step
    before, after = run.of_kind("plan_chosen")[0].resolved, again.of_kind("plan_chosen")[0].resolved
    assert before == after


def test_another_network_is_refused_while_preparing(tmp_path: Path, images: Path, weights: str) -> None:
    model = {"weights": weights, "name": "resnet18"}
    run = make_run(tmp_path, f"file://{images}", model=model, job_id="second")
    refused(run, "checkpoint_invalid", weights, "conv1.weight is missing")


def test_weights_that_nobody_has_are_refused_before_the_data_is_read(tmp_path: Path) -> None:
    run = make_run(tmp_path, "file://no-such-folder", model={"weights": NOBODYS})
    refused(run, "weights_unavailable", NOBODYS)


def save_weights(path: Path) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    tensors = {name: one.clone() for name, one in make_model("small_cnn", channels=1, classes=3).state_dict().items()}
    save_file(tensors, path)
    return tensors


def started_from(run: Run, tensors: dict[str, torch.Tensor]) -> None:
    """With a learning rate of next to nothing, what was saved is what was loaded."""
    assert run.finish() == 0, run.log()
    saved = load_file(run.file(f"{run.last_checkpoint().path}/model.safetensors"))
    for name, tensor in tensors.items():
        torch.testing.assert_close(saved[name], tensor, rtol=1e-3, atol=1e-5)


def training() -> dict[str, Any]:
    return {"epochs": 1, "optimizer": {"name": "sgd", "learning_rate": 1e-12}}


def test_a_safetensors_file_below_the_roots(tmp_path: Path, images: Path) -> None:
    tensors = save_weights(tmp_path / "mine.safetensors")
    model = {"name": "small_cnn", "weights": f"file://{tmp_path}/mine.safetensors"}
    started_from(make_run(tmp_path, f"file://{images}", training=training(), model=model), tensors)


def test_a_safetensors_file_in_a_bucket(tmp_path: Path, images: Path, s3: S3) -> None:
    tensors = save_weights(tmp_path / "mine.safetensors")
    s3.upload(images, "pets", "stripes")
    s3.client().upload_file(str(tmp_path / "mine.safetensors"), "pets", "models/mine.safetensors")
    model = {"name": "small_cnn", "weights": "s3://pets/models/mine.safetensors"}
    run = make_run(
        tmp_path,
        "s3://pets/stripes",
        training=training(),
        model=model,
        credentials="pets",
        credentials_file=s3.credentials_file,
    )
    started_from(run, tensors)


@pytest.mark.parametrize(
    ("uri", "content", "reason"),
    [
        ("file:///etc/passwd", None, "weights_unavailable"),
        ("file://missing.safetensors", None, "weights_unavailable"),
        ("file://text.safetensors", b"hello", "checkpoint_invalid"),
        ("file://model.pth", b"a pickle", "weights_unavailable"),
        ("file://huge.safetensors", b"\xff" * 7 + b"\x7f{}", "checkpoint_invalid"),
    ],
)
def test_files_that_are_no_weights(tmp_path: Path, images: Path, uri: str, content: bytes | None, reason: str) -> None:
    if content is not None:
        (tmp_path / uri.removeprefix("file://")).write_bytes(content)
    run = make_run(tmp_path, f"file://{images}", model={"name": "small_cnn", "weights": uri})
    refused(run, reason, "model.weights")
