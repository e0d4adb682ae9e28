"""Batches, ranks and splits of a single image: trained, or refused in words; never a ValueError of torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.training.inside import train_inside
from tests.training.running import make_images, make_run


@pytest.mark.parametrize(
    ("model", "training"),
    [
        ("small_resnet", {"batch_size": 1}),  # 16 px come to 2 x 2
        ("small_cnn", {"batch_size": 1, "image_size": 8}),
        ("small_resnet", {"batch_size": 2, "image_size": 8}),
        ("small_resnet", {"batch_size": 10, "image_size": 8}),  # the rest of an epoch is a single image
    ],
)
def test_what_can_be_trained_is(tmp_path: Path, model: str, training: dict[str, Any]) -> None:
    data = make_images(tmp_path / "few", classes=2, each=7)
    run = make_run(
        tmp_path, f"file://{data}", model=model, dataset={"split": {"validation": 0.15}},
        training={"epochs": 2, **training},
    )  # fmt: skip
    assert train_inside(run) == 0, run.outcome
    assert all(0 <= value <= 1 for _, value in run.series("validation/accuracy"))


def test_pieces_of_one_are_taken_as_two(tmp_path: Path, images: Path) -> None:
    run = make_run(
        tmp_path, f"file://{images}", model="small_resnet", compute={"micro_batch_size": 1},
        training={"epochs": 1, "batch_size": 5, "image_size": 8},
    )  # fmt: skip
    assert run.finish() == 0, run.log()
    [plan] = run.of_kind("plan_chosen")
    assert plan.resolved["compute.micro_batch_size"] == 2


def test_two_ranks_with_one_image_each_are_refused_before_they_start(tmp_path: Path, images: Path) -> None:
    run = make_run(
        tmp_path, f"file://{images}", model="small_resnet", devices=2, training={"batch_size": 3, "image_size": 8}
    )
    assert run.finish() == 1
    assert (run.outcome.reason, run.outcome.phase) == ("unsupported", "preparing")
    assert "a batch of 3, shared by 2 devices, leaves" in (run.outcome.message or "")
    assert "Error:" not in run.log().replace("Failed:", "")
