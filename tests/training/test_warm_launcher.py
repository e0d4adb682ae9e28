"""The launcher that has imported everything: it stays clean, and what it forks trains as a fresh process does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.training.running import ROOT, Run, make_run
from tests.waiting import eventually
from training_core.runtime.launcher_protocol import Stage
from worker.launcher import Launcher
from worker.process import Process, environment
from worker.settings import Settings

CURVES = ("train/loss", "train/learning_rate", "validation/loss", "validation/accuracy", "test/loss")
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node")


@pytest.fixture(scope="module")
def launcher() -> Iterator[Launcher]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        launcher = Launcher(Settings(redis_url="redis://nowhere", store="file:///nowhere", device="cpu"))
        launcher.start()
        eventually(lambda: launcher.pid, 90)
        yield launcher
        launcher.stop()


def started(launcher: Launcher, run: Run, stage: Stage) -> Process:
    """Waits for a new launcher where somebody edits the code while the tests run."""
    variables = environment(device="cpu", slots=(), threads=1)
    process = eventually(lambda: launcher.launch(run.dir, stage, variables), 90)
    assert process is not None
    return process


def trained(launcher: Launcher, run: Run) -> Run:
    assert started(launcher, run, "prepare").wait(60) == 0, run.log()
    assert started(launcher, run, "train").wait(60) == 0, run.log()
    return run


def clean(launcher: Launcher) -> bool:
    """One thread, no device, no memory-mapped data, no socket but the worker's."""
    process = Path(f"/proc/{launcher.pid}")
    files = [os.readlink(one) for one in (process / "fd").iterdir()]
    return (
        len(list((process / "task").iterdir())) == 1
        and sum(name.startswith("socket:") for name in files) == 1
        and not any("nvidia" in name or "/dev/dri" in name or name.startswith("anon_inode") for name in files)
    )


def test_warm_trains_as_cold_does(launcher: Launcher, tmp_path: Path, images: Path) -> None:
    cold = make_run(tmp_path, f"file://{images}", job_id="cold")
    assert cold.finish() == 0, cold.log()
    warm = trained(launcher, make_run(tmp_path, f"file://{images}", job_id="warm"))
    for name in CURVES:
        assert warm.series(name) == cold.series(name), name
    assert in_order(warm) == in_order(cold)
    assert warm.kinds().count("checkpoint_saved") == cold.kinds().count("checkpoint_saved")
    assert clean(launcher)


def in_order(run: Run) -> list[str]:
    """Reports that depend on no clock: checkpoints are told when they are safe, progress and accounts now and then."""
    return [
        kind for kind in run.kinds() if not kind.startswith("checkpoint") and kind not in {"progress", "efficiency"}
    ]


def test_forked_ranks_train_as_under_torchrun(launcher: Launcher, tmp_path: Path, images: Path) -> None:
    forked = make_run(tmp_path, f"file://{images}", training={"batch_size": 13}, job_id="forked", devices=2)
    theirs = make_run(tmp_path, f"file://{images}", training={"batch_size": 13}, job_id="torchrun", devices=2)
    with theirs.dir.log.open("wb") as log:
        code = subprocess.run(
            [sys.executable, *TORCHRUN, "2", "-m", "training_core.train", str(theirs.dir.path)],
            cwd=ROOT, stdout=log, stderr=log, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
        ).returncode  # fmt: skip
    assert code == 0, theirs.log()
    trained(launcher, forked)
    assert forked.of_kind("plan_chosen")[0].world_size == 2
    for name in CURVES:
        assert forked.series(name) == theirs.series(name), name
    assert clean(launcher)


def test_the_launcher_stays_clean_over_fifty_runs(launcher: Launcher, tmp_path: Path) -> None:
    for number in range(50):
        run = make_run(tmp_path, "file://nowhere", job_id=f"job-{number}")
        assert started(launcher, run, "prepare").wait(30) == 1
        assert run.outcome.reason == "dataset_unreachable", run.log()
    assert clean(launcher)


def test_a_killed_rank_is_named_and_takes_the_others_down(launcher: Launcher, tmp_path: Path, images: Path) -> None:
    run = make_run(tmp_path, f"file://{images}", training={"epochs": 5000}, devices=2)
    assert started(launcher, run, "prepare").wait(60) == 0, run.log()
    process = started(launcher, run, "train")
    eventually(lambda: "first_step" in run.kinds(), 60)
    ranks = psutil.Process(process.pid).children()
    assert {" ".join(rank.cmdline()).split()[2] for rank in ranks} == {"0", "1"}
    next(rank for rank in ranks if " ".join(rank.cmdline()).split()[2] == "1").kill()
    assert process.wait(60) == 1
    assert run.outcome.reason == "process_died", run.log()
    assert "rank 1 was killed by SIGKILL" in (run.outcome.message or "")
    assert not any(rank.is_running() for rank in ranks)


def test_no_rank_outlives_what_forked_it(launcher: Launcher, tmp_path: Path, images: Path) -> None:
    run = make_run(tmp_path, f"file://{images}", training={"epochs": 5000}, devices=2)
    assert started(launcher, run, "prepare").wait(60) == 0, run.log()
    process = started(launcher, run, "train")
    eventually(lambda: "first_step" in run.kinds(), 60)
    ranks = psutil.Process(process.pid).children()
    os.kill(process.pid, 9)
    assert process.wait(20) == -9
    eventually(lambda: not any(rank.is_running() for rank in ranks))
    assert run.dir.read_outcome() is None
