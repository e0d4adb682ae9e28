"""The two promises: ranks do not change the curve, and a kill does not change the result."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest

from tests.training.running import Run, make_run
from tests.waiting import eventually

CURVES = ("train/loss", "train/learning_rate", "validation/loss", "validation/accuracy", "test/loss")


def test_two_ranks_give_the_curve_of_one(tmp_path: Path, images: Path) -> None:
    training = {"batch_size": 13, "ema_decay": 0.9}
    one = make_run(tmp_path, f"file://{images}", training=training, job_id="one")
    two = make_run(tmp_path, f"file://{images}", training=training, job_id="two", devices=2)
    assert one.finish() == 0, one.log()
    assert two.finish() == 0, two.log()
    assert two.of_kind("plan_chosen")[0].world_size == 2
    for name in CURVES:
        steps, values = zip(*one.series(name), strict=True)
        other_steps, other_values = zip(*two.series(name), strict=True)
        assert steps == other_steps
        assert values == pytest.approx(other_values, rel=2e-3, abs=1e-4), name


def killed_after(run: Run, step: int) -> None:
    """Start, and SIGKILL once a checkpoint at `step` or later was reported."""
    with run.start() as process:
        while not (run.dir.events.exists() and any(one.step >= step for one in run.of_kind("checkpoint_saved"))):
            assert process.poll() is None, run.log()
        process.kill()
    assert run.dir.read_outcome() is None


def test_a_damaged_checkpoint_is_told_and_an_older_one_is_taken(tmp_path: Path, images: Path) -> None:
    training = {"epochs": 500, "checkpoint_every_steps": 4}
    first = make_run(tmp_path, f"file://{images}", training=training)
    killed_after(first, 12)
    left = sorted(path.parent for path in first.file("jobs").rglob("manifest.json"))
    newest = left[-1].relative_to(first.file("")).as_posix()
    weights = left[-1] / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    second = make_run(tmp_path, f"file://{images}", training=training, attempt=2, resume_from=newest)
    with second.start() as process:
        eventually(lambda: second.dir.events.exists() and "first_step" in second.kinds(), 60)
        second.dir.request_stop()
        assert process.wait(30) == 0, second.log()
    [alert] = second.of_kind("alert_raised")
    assert alert.alert == "checkpoint_damaged"
    [started] = second.of_kind("started")
    assert started.checkpoint != newest
    expected = int(left[-2].name.removeprefix("step-")) if len(left) > 1 else 0
    assert started.resumed_from_step == expected


def test_no_rank_outlives_its_launcher(tmp_path: Path, images: Path) -> None:
    run = make_run(tmp_path, f"file://{images}", training={"epochs": 5000}, devices=2)
    with run.start(TRAINYARD_PARENT_PID=str(os.getpid())) as process:
        eventually(lambda: run.dir.events.exists() and "first_step" in run.kinds(), 90)
        ranks = psutil.Process(process.pid).children(recursive=True)
        assert len(ranks) == 2
        process.send_signal(signal.SIGKILL)
    eventually(lambda: not any(_alive(rank) for rank in ranks), 10)


def _alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_a_killed_rank_is_named(tmp_path: Path, images: Path) -> None:
    run = make_run(tmp_path, f"file://{images}", training={"epochs": 5000}, devices=2)
    with run.start() as process:
        eventually(lambda: run.dir.events.exists() and "first_step" in run.kinds(), 90)
        ranks = sorted(psutil.Process(process.pid).children(recursive=True), key=lambda one: one.cmdline())
        assert [" ".join(one.cmdline()).split()[:3] for one in ranks] == [["trainyard", "rank", str(n)] for n in (0, 1)]
        ranks[1].kill()
        assert process.wait(60) == 1
    assert run.outcome.reason == "process_died", run.log()
    assert "rank 1 was killed by SIGKILL" in (run.outcome.message or "")
