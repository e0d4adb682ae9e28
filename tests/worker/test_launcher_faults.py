"""A launcher that is killed, hung, old or outdated costs its speed and nothing else; nothing outlives its worker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.waiting import eventually
from tests.worker.conftest import Book
from tests.worker.test_launcher import forked
from training_core.contract.errors import Reason
from training_core.contract.messages import Ticket
from training_core.contract.run_dir import RunDir
from worker import launcher as worker_launcher
from worker.host import Host
from worker.launcher import Launcher
from worker.runner import run_attempt
from worker.settings import Settings

# Stands for a worker: starts a launcher and one run, says their process ids, and waits to be killed.
WORKER = """
import sys, time
from pathlib import Path
from training_core.contract.run_dir import RunDir
from worker.launcher import Launcher
from worker.process import environment
from worker.settings import Settings
launcher = Launcher(Settings(), sys.argv[2:])
launcher.start()
while launcher.pid is None:
    time.sleep(0.01)
run = launcher.launch(RunDir(Path(sys.argv[1])), "train", environment(device="cpu", slots=(), threads=1))
print(launcher.pid, run.pid, flush=True)
run.wait(60)
"""


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_killed_launcher_takes_no_run_along_and_is_replaced(
    start_launcher: Callable[..., Launcher], make_run: Callable[..., RunDir]
) -> None:
    launcher, run = start_launcher(), make_run("obey")
    first = launcher.pid
    assert first is not None
    process = forked(launcher, run)
    os.kill(first, signal.SIGKILL)
    assert eventually(lambda: launcher.pid not in (None, first), 30)
    assert process.wait(0) is None
    run.request_stop()
    assert process.wait(20) == 0
    assert forked(launcher, make_run("complete")).wait(20) == 0


def test_a_hung_launcher_is_done_without_and_replaced(
    start_launcher: Callable[..., Launcher],
    make_run: Callable[..., RunDir],
    monkeypatch: pytest.MonkeyPatch,
    no_child_but: Callable[[int | None], bool],
) -> None:
    monkeypatch.setattr(worker_launcher, "ANSWER_SECONDS", 0.3)
    launcher, run = start_launcher(), make_run("complete")
    first = launcher.pid
    assert first is not None
    os.kill(first, signal.SIGSTOP)
    assert launcher.launch(run, "train", {}) is None
    assert gone(first)
    assert eventually(lambda: launcher.pid, 30) != first
    eventually(lambda: no_child_but(launcher.pid))
    assert not (run.path / "train.json").exists()


def test_a_launcher_is_replaced_after_its_orders_and_serves_until_then(
    start_launcher: Callable[..., Launcher], make_run: Callable[..., RunDir]
) -> None:
    launcher = start_launcher(launcher_orders=3)
    first = launcher.pid
    for number in range(3):
        assert launcher.pid == first
        assert forked(launcher, make_run("complete", number)).wait(20) == 0
    assert eventually(lambda: launcher.pid != first, 30)
    assert forked(launcher, make_run("complete", 3)).wait(20) == 0


def test_new_code_never_runs_in_an_old_launcher(
    start_launcher: Callable[..., Launcher], make_run: Callable[..., RunDir], monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher = start_launcher()
    first = launcher.pid
    before = worker_launcher.code_version()
    monkeypatch.setattr(worker_launcher, "code_version", lambda: before + 1)
    assert launcher.launch(make_run("complete"), "train", {}) is None
    assert eventually(lambda: launcher.pid not in (None, first), 30)
    assert forked(launcher, make_run("complete", 1)).wait(20) == 0


def test_the_code_version_follows_every_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tmp_path / "data" / "sample.py"
    module.parent.mkdir()
    module.write_text("order = 1")
    monkeypatch.setattr(worker_launcher.training_core, "__path__", [str(tmp_path)])
    before = worker_launcher.code_version()
    assert worker_launcher.code_version() == before
    os.utime(module, ns=(1, 1))
    assert worker_launcher.code_version() != before


def test_a_launcher_that_cannot_start_costs_nothing_but_its_speed(
    settings: Settings, host: Host, ticket: Callable[..., Ticket], book: Book
) -> None:
    host.launcher = Launcher(settings, (sys.executable, "-c", "raise SystemExit(3)"))
    host.launcher.start()
    run_attempt(host, ticket(host, "complete"))
    assert eventually(lambda: book.finished("att_complete_1"))["reason"] == Reason.COMPLETED
    began = time.monotonic()
    host.launcher.stop()
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("hung", [False, True])
def test_nothing_outlives_a_killed_worker(
    settings: Settings,
    launcher_program: tuple[str, ...],
    make_run: Callable[..., RunDir],
    tmp_path: Path,
    *,
    hung: bool,
) -> None:
    run = make_run("deaf")
    variables = {
        **os.environ,
        "TRAINYARD_REDIS_URL": settings.redis_url.get_secret_value(),
        "TRAINYARD_STORE": settings.store,
    }
    with subprocess.Popen(
        [sys.executable, "-c", WORKER, str(run.path), *launcher_program], env=variables, stdout=subprocess.PIPE
    ) as worker:
        assert worker.stdout is not None
        pids = [int(word) for word in worker.stdout.readline().split()]
        assert [gone(pid) for pid in pids] == [False, False]
        if hung:
            os.kill(pids[0], signal.SIGSTOP)
        worker.kill()
    eventually(lambda: all(gone(pid) for pid in pids))
