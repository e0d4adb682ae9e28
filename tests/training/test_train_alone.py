"""One training from beginning to end, by itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from tests.training.running import make_run


def test_a_run_dir_with_a_spec_is_enough(tmp_path: Path, images: Path) -> None:
    run = make_run(tmp_path, f"file://{images}", training={"epochs": 5})
    assert run.finish("training_core.train") == 0, run.log()
    assert run.outcome.result == "completed"
    kinds = run.kinds()
    assert kinds[:5] == ["data_reported", "data_ready", "plan_chosen", "started", "first_step"]
    assert kinds[-2:] == ["summary", "efficiency"]
    assert [report.seq for report in run.reports] == list(range(1, len(kinds) + 1))
    [ready] = run.of_kind("data_ready")
    assert ready.classes == ["class-0", "class-1", "class-2"]
    assert ready.images == {"train": 45, "validation": 18, "test": 9}
    [summary] = run.of_kind("summary")
    assert summary.metrics["test/accuracy"] > 0.5
    parts = {name: value for name, value in summary.seconds.items() if name != "total"}
    assert sum(parts.values()) == pytest.approx(summary.seconds["total"], rel=0.05)
    for name in ("train/loss", "validation/accuracy", "validation/loss", "throughput/images_per_second"):
        steps = [step for step, _ in run.series(name)]
        assert steps == sorted(set(steps))
        assert steps


def test_checkpoints_are_verified_files_and_only_the_best_and_the_last_stay(tmp_path: Path, images: Path) -> None:
    run = make_run(tmp_path, f"file://{images}", training={"epochs": 4, "checkpoint_every_steps": 2})
    assert run.finish() == 0, run.log()
    saved = {one.path: one for one in run.of_kind("checkpoint_saved")}
    gone = {one.path for one in run.of_kind("checkpoint_deleted")}
    [summary] = run.of_kind("summary")
    left = {path.parent for path in run.file("jobs").rglob("manifest.json")}
    assert left == {run.file(path) for path in saved.keys() - gone}
    assert run.file(summary.best_checkpoint) in left
    assert run.file(run.last_checkpoint().path) in left
    manifest = json.loads(run.file(f"{summary.best_checkpoint}/manifest.json").read_text())
    assert manifest["about"]["classes"] == ["class-0", "class-1", "class-2"]
    assert load_file(run.file(f"{summary.best_checkpoint}/model.safetensors"))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_is_what_was_asked_for_and_learns(tmp_path: Path, images: Path, precision: str) -> None:
    run = make_run(tmp_path, f"file://{images}", training={"epochs": 2, "image_size": 8}, precision=precision)
    assert run.finish() == 0, run.log()
    [plan] = run.of_kind("plan_chosen")
    assert plan.resolved["compute.precision"] == precision
    losses = [loss for _, loss in run.series("train/loss")]
    assert losses[-1] < losses[0]


def test_the_stop_file_ends_a_run_with_a_checkpoint(tmp_path: Path, images: Path) -> None:
    run = make_run(tmp_path, f"file://{images}", training={"epochs": 5000})
    with run.start() as process:
        while not run.dir.events.exists() or "first_step" not in run.kinds():
            assert process.poll() is None, run.log()
        run.dir.request_stop()
        assert process.wait(30) == 0
    assert run.outcome.result == "stopped"
    assert run.outcome.step == run.last_checkpoint().step > 0
    assert "summary" not in run.kinds()


def test_a_loss_that_is_no_number_ends_the_run(tmp_path: Path, images: Path) -> None:
    wild = {"name": "sgd", "learning_rate": 100.0, "momentum": 0.99}
    run = make_run(
        tmp_path,
        f"file://{images}",
        training={"epochs": 200, "optimizer": wild, "schedule": {"name": "constant", "warmup_epochs": 0}},
        model="mobilenet_v3_small",
    )
    assert run.finish() == 1
    assert run.outcome.reason == "nan_loss", run.log()
    assert run.of_kind("alert_raised")[0].alert in {"nan", "small_batch"}


def test_early_stopping_brings_the_decay_forward_and_ends_a_run_that_completed(tmp_path: Path, images: Path) -> None:
    """The rule fires after the second epoch; the cosine has not decayed, so an epoch of decay follows."""
    rule = {"metric": "validation/accuracy", "patience": 1, "min_delta": 0.9}
    run = make_run(tmp_path, f"file://{images}", training={"epochs": 50, "early_stopping": rule})
    assert run.finish() == 0, run.log()
    assert run.outcome.result == "completed"
    [stopped] = run.of_kind("early_stopped")
    assert stopped.step < 150
    assert len(run.series("validation/accuracy")) == 3


def test_prepared_data_is_shared_by_runs(tmp_path: Path, images: Path) -> None:
    first = make_run(tmp_path, f"file://{images}", training={"epochs": 1})
    assert first.finish() == 0, first.log()
    [meta] = (tmp_path / "cache").glob("*/meta.json")
    shard = meta.parent / "pixels-00000.bin"
    before = shard.stat()
    second = make_run(tmp_path, "file://stripes", training={"epochs": 1, "seed": 1}, job_id="other")
    assert second.finish() == 0, second.log()
    after = shard.stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
