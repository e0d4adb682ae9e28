"""A student learns from a teacher of the store, and a teacher that cannot answer is refused before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.training.inside import train_inside
from tests.training.plans import make_plan
from tests.training.running import KEPT, NOBODYS, make_images, make_run
from training_core.contract.model_card import Preprocessing
from training_core.engine.distillation import Teacher, soft_loss_sum
from training_core.engine.objective import Objective
from training_core.vision.augment.mix import Mixed
from training_core.vision.data_loaders import Statistics
from training_core.vision.network_of_card import Trained
from training_core.vision.networks import small_cnn

CPU = torch.device("cpu")
CLASSES = ["a", "b", "c"]


def teacher_of(network: nn.Module, classes: list[str], mean: float, deviation: float, side: int = 16) -> Teacher:
    seen = Preprocessing(image_size=side, channels=1, mean=[mean], standard_deviation=[deviation])
    trained = Trained("small_cnn", classes, seen, network, {})
    return Teacher(trained, Statistics([100.0], [40.0]), CLASSES, "fp32", CPU)


def test_the_soft_loss_is_hintons() -> None:
    torch.manual_seed(0)
    student, teacher, temperature = torch.randn(5, 3, requires_grad=True), torch.randn(5, 3), 3.0
    wanted, given = (teacher / temperature).softmax(1), (student / temperature).softmax(1)
    expected = temperature**2 * (wanted * (wanted / given).log()).sum()
    torch.testing.assert_close(soft_loss_sum(student, teacher, temperature), expected)
    assert soft_loss_sum(teacher, teacher, temperature) == pytest.approx(0, abs=1e-6)
    # At high temperature the gradient is that of matching logits (section 2.1 of the paper).
    soft_loss_sum(student, teacher, 1e3).backward()  # type: ignore[no-untyped-call]
    centred = [(one - one.mean(1, keepdim=True)) for one in (student.detach(), teacher)]
    torch.testing.assert_close(student.grad, (centred[0] - centred[1]) / 3, rtol=1e-2, atol=1e-3)


def test_the_teacher_sees_its_own_normalisation_size_and_classes() -> None:
    torch.manual_seed(1)
    network = small_cnn(1, 3).eval()
    pixels = torch.rand(4, 1, 16, 16) * 255
    teacher = teacher_of(network, ["c", "a", "b"], mean=70.0, deviation=55.0)
    logits = teacher.logits((pixels - 100) / 40)
    torch.testing.assert_close(logits, network((pixels - 70) / 55)[:, [1, 2, 0]], rtol=1e-4, atol=1e-4)
    assert not logits.requires_grad
    small = functional.interpolate(pixels, (12, 12), mode="bilinear", antialias=True)
    again = functional.interpolate((small - 70) / 55, (16, 16), mode="bilinear", antialias=True)
    torch.testing.assert_close(teacher.logits((small - 100) / 40), network(again)[:, [1, 2, 0]], rtol=1e-3, atol=1e-3)


def test_its_weight_is_its_share_of_the_loss() -> None:
    torch.manual_seed(2)
    plan = make_plan(distillation={"teacher": KEPT, "temperature": 2.0, "weight": 0.75})
    teacher = teacher_of(small_cnn(1, 3), CLASSES, 100.0, 40.0)
    images, labels, logits = torch.randn(4, 1, 16, 16), torch.tensor([0, 1, 2, 0]), torch.randn(4, 3)
    hard = functional.cross_entropy(logits, labels, reduction="sum")
    soft = soft_loss_sum(logits, teacher.logits(images), 2.0)
    loss = Objective(plan, teacher).loss_sum(logits, Mixed(images, labels))
    torch.testing.assert_close(loss, 0.25 * hard + 0.75 * soft)


def test_a_student_comes_near_its_teacher(tmp_path: Path, images: Path, weights: str) -> None:
    distillation: dict[str, Any] = {"teacher": weights, "weight": 1.0, "temperature": 2.0}
    training = {"epochs": 12, "distillation": distillation, "seed": 5}
    run = make_run(tmp_path, f"file://{images}", training=training, job_id="student")
    assert train_inside(run) == 0, run.outcome
    losses = [value for _, value in run.series("train/loss")]
    assert losses[-1] < 0.5 * losses[0], "all of it is against the teacher"
    assert run.of_kind("summary")[0].metrics["validation/accuracy"] > 0.7


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"teacher": NOBODYS}, ("weights_unavailable", "no checkpoint")),
        ({"data": {"classes": 4}}, ("unsupported", "it does not know class-3")),
        ({"data": {"classes": 2}}, ("unsupported", "only it knows class-2")),
        ({"damaged": True}, ("checkpoint_invalid", "cannot be used")),
    ],
)
def test_a_teacher_that_cannot_answer_is_refused_in_the_preparation(
    tmp_path: Path, images: Path, weights: str, change: dict[str, Any], said: tuple[str, str]
) -> None:
    data = make_images(tmp_path / "other", **change["data"]) if "data" in change else images
    distillation = {"teacher": change.get("teacher", weights)}
    run = make_run(tmp_path, f"file://{data}", training={"distillation": distillation}, job_id="student")
    if "damaged" in change:
        manifest = run.file(f"{weights}/manifest.json")
        manifest.write_bytes(manifest.read_bytes()[:-40])
    assert train_inside(run) == 1
    outcome, (reason, words) = run.outcome, said
    assert (outcome.phase, outcome.reason) == ("preparing", reason)
    assert words in (outcome.message or "")
    assert "training.distillation.teacher" in (outcome.message or "")
    assert outcome.hint
    assert "started" not in run.kinds()


def test_damaged_weights_are_refused_before_the_first_step(tmp_path: Path, images: Path, weights: str) -> None:
    run = make_run(tmp_path, f"file://{images}", training={"distillation": {"teacher": weights}}, job_id="student")
    file = run.file(f"{weights}/model.safetensors")
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    assert train_inside(run) == 1
    assert run.outcome.reason == "checkpoint_invalid"
    assert "training.distillation.teacher" in (run.outcome.message or "")
    assert "first_step" not in run.kinds()
