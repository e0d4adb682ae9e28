"""Sampling, augmentation and mixing do not break the promises: exact resume, and ranks that do not change the curve."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.training.running import make_run
from tests.waiting import eventually

CURVES = ("train/loss", "train/learning_rate", "validation/loss", "validation/accuracy", "test/loss")
MIXED: dict[str, Any] = {
    "batch_size": 12,
    "augmentation": {"preset": "strong", "mixup": 0.4, "cutmix": 1.0},
    "sampling": {"balance": "classes"},
}


@pytest.mark.long
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path: Path, images: Path) -> None:
    training = {**MIXED, "epochs": 120}
    whole = make_run(tmp_path, f"file://{images}", training=training, job_id="whole")
    assert whole.finish() == 0, whole.log()
    first = make_run(tmp_path, f"file://{images}", training=training)
    with first.start() as process:
        eventually(lambda: first.dir.events.exists() and "first_step" in first.kinds(), 60)
        first.dir.request_stop()
        assert process.wait(30) == 0, first.log()
    assert first.outcome.result == "stopped"
    step = first.last_checkpoint().step
    second = make_run(
        tmp_path, f"file://{images}", training=training, attempt=2, resume_from=first.last_checkpoint().path
    )
    assert second.finish() == 0, second.log()
    assert second.of_kind("started")[0].resumed_from_step == step > 0
    for name in CURVES:
        assert second.series(name) == whole.series(name), name
    expected = whole.file(f"{whole.last_checkpoint().path}/model.safetensors").read_bytes()
    assert second.file(f"{second.last_checkpoint().path}/model.safetensors").read_bytes() == expected


@pytest.mark.long
def test_two_ranks_and_a_loader_process_give_the_curve_of_one(tmp_path: Path, images: Path) -> None:
    one = make_run(tmp_path, f"file://{images}", training=MIXED, job_id="one")
    two = make_run(tmp_path, f"file://{images}", training=MIXED, job_id="two", devices=2, loader="process")
    assert one.finish() == 0, one.log()
    assert two.finish() == 0, two.log()
    for name in CURVES:
        steps, values = zip(*one.series(name), strict=True)
        other_steps, other_values = zip(*two.series(name), strict=True)
        assert steps == other_steps
        assert values == pytest.approx(other_values, rel=2e-3, abs=1e-4), name


def test_what_the_dataset_lacks_is_told_before_anything_is_trained(tmp_path: Path, images: Path) -> None:
    run = make_run(tmp_path, f"file://{images}", training={"sampling": {"pacing": "easy_to_hard"}})
    assert run.finish() == 1
    assert run.outcome.reason == "unsupported"
    assert run.outcome.phase == "preparing"
    assert "dataset.columns.difficulty" in (run.outcome.hint or "")
