"""What goes wrong in the middle of a run: the right reason, by the rank that knows it, and the last good checkpoint."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.training.running import ROOT, Run, make_run
from tests.waiting import eventually
from training_core.checkpoints.manifest import unsealed


def finish_with(run: Run, fault: str, step: int) -> int:
    with run.dir.log.open("wb") as log:
        command = [sys.executable, "-m", "tests.training.faulty", fault, str(step), str(run.dir.path)]
        return subprocess.run(command, cwd=ROOT, stdout=log, stderr=log, check=False, timeout=120).returncode


def sound(run: Run) -> list[int]:
    """The steps of the checkpoints that are there, oldest first."""
    return sorted(unsealed(one.read_bytes()).step for one in run.file("jobs").rglob("manifest.json"))


def test_the_rank_that_raised_is_the_cause(tmp_path: Path, images: Path) -> None:
    run = make_run(tmp_path, f"file://{images}", training={"epochs": 50, "checkpoint_every_steps": 2}, devices=2)
    assert finish_with(run, "raise-1", 5) == 1
    outcome = run.outcome
    assert (outcome.reason, outcome.rank, outcome.step) == ("training_error", 1, 5), run.log()
    assert "the fault of rank 1" in (outcome.message or "")
    # Rank 0 had one on its way, and told of it before it went.
    assert sound(run)[-1] == run.last_checkpoint().step == 4


def test_a_loss_that_is_no_number_keeps_the_last_good_checkpoint(tmp_path: Path, images: Path) -> None:
    training = {"epochs": 50, "checkpoint_every_steps": 1}
    run = make_run(tmp_path, f"file://{images}", training=training)
    assert finish_with(run, "nan", 7) == 1
    assert (run.outcome.reason, run.outcome.hint) == ("nan_loss", "lower training.optimizer.learning_rate")
    assert sound(run)[-1] == run.last_checkpoint().step == 7
    assert "its weights are no numbers" in " ".join(one.message for one in run.of_kind("alert_raised"))


@pytest.fixture
def small_store(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "store"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(folder)], check=False)
    if done.returncode != 0:
        pytest.skip("only who may mount can make a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.long
def test_a_full_disk_is_no_space_and_the_newest_checkpoint_stays(
    tmp_path: Path, images: Path, small_store: Path
) -> None:
    run = make_run(tmp_path, f"file://{images}", training={"epochs": 50, "checkpoint_every_steps": 5})
    assert finish_with(run, "full", 12) == 1
    assert run.outcome.reason == "no_space", run.log()
    assert "the checkpoint of step" in (run.outcome.message or "")
    assert sound(run)[-1] == run.last_checkpoint().step >= 10
    assert list(small_store.rglob("*.tmp")) == []


@pytest.mark.long
def test_a_store_without_room_is_refused_before_the_first_step(tmp_path: Path, images: Path, small_store: Path) -> None:
    (small_store / "ballast").write_bytes(b"x" * (8 * 2**20 - 400_000))
    run = make_run(tmp_path, f"file://{images}")
    assert run.finish() == 1
    assert run.outcome.reason == "no_space"
    assert "MiB are free" in (run.outcome.message or "")
    assert "first_step" not in run.kinds()


def test_a_rank_that_sleeps_for_ever_ends_the_run(tmp_path: Path, images: Path) -> None:
    run = make_run(tmp_path, f"file://{images}", training={"epochs": 5000, "checkpoint_every_steps": 5}, devices=2)
    with run.start(TRAINYARD_COLLECTIVE_SECONDS="4", TRAINYARD_PARENT_PID=str(os.getpid())) as process:
        eventually(lambda: run.dir.events.exists() and "checkpoint_saved" in run.kinds(), 90)
        ranks = sorted(psutil.Process(process.pid).children(recursive=True), key=lambda one: one.cmdline())
        ranks[1].send_signal(signal.SIGSTOP)
        assert process.wait(60) == 1
    assert run.outcome.reason == "stalled", run.log()
    assert "rank 0 has waited for another rank" in (run.outcome.message or "")
    assert run.last_checkpoint().step in sound(run)
    assert not any(psutil.pid_exists(one.pid) for one in ranks)
