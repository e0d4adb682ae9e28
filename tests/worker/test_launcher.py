"""The warm launcher with the real protocol and real forks; what it forks is the small program of `conftest`.

The launcher that has imported torch is tested in `tests/training/test_warm_launcher.py`.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.waiting import eventually
from tests.worker.conftest import Book
from tests.worker.test_runner import run_dir, running
from training_core.contract.errors import Reason
from training_core.contract.messages import Ticket
from training_core.contract.run_dir import RunDir
from worker.host import Host
from worker.launcher import Launcher
from worker.outcome import Cause
from worker.process import Process, environment
from worker.runner import run_attempt


def forked(launcher: Launcher, run: RunDir) -> Process:
    process = launcher.launch(run, "train", environment(device="cpu", slots=(), threads=1))
    assert process is not None
    return process


def test_a_run_is_a_child_of_the_worker_with_a_clean_environment(
    start_launcher: Callable[..., Launcher], make_run: Callable[..., RunDir], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINYARD_REDIS_URL", "redis://:hunter2@broker")
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    launcher, run = start_launcher(), make_run("obey")
    process = forked(launcher, run)
    seen = json.loads(eventually(lambda: (run.path / "train.json").read_text() if run.events.exists() else ""))
    assert seen["pid"] == process.pid
    assert "hunter2" not in str(seen)
    assert seen["environment"]["TZ"] == "Asia/Tokyo"
    assert b"hunter2" not in Path(f"/proc/{launcher.pid}/environ").read_bytes()
    child = psutil.Process(process.pid)
    assert child.ppid() == os.getpid()
    assert os.getsid(process.pid) == process.pid
    assert " ".join(child.cmdline()).strip() == f"trainyard train {run.path}"
    assert {str(one) for one in Path(f"/proc/{process.pid}/fd").iterdir()} >= {f"/proc/{process.pid}/fd/0"}
    assert os.readlink(f"/proc/{process.pid}/fd/0") == os.devnull
    assert os.readlink(f"/proc/{process.pid}/fd/2") == str(run.log)
    sockets = [one for one in Path(f"/proc/{process.pid}/fd").iterdir() if os.readlink(one).startswith("socket:")]
    assert sockets == []
    run.request_stop()
    assert process.wait(20) == 0


@pytest.mark.parametrize(("mode", "exit_code"), [("complete", 0), ("die", -9)])
def test_exit_codes_and_signals_arrive_as_from_any_child(
    start_launcher: Callable[..., Launcher],
    make_run: Callable[..., RunDir],
    mode: str,
    exit_code: int,
    no_child_but: Callable[[int | None], bool],
) -> None:
    launcher = start_launcher()
    assert forked(launcher, make_run(mode)).wait(20) == exit_code
    eventually(lambda: no_child_but(launcher.pid))


def test_fifty_runs_from_four_threads(
    start_launcher: Callable[..., Launcher], make_run: Callable[..., RunDir], no_child_but: Callable[[int | None], bool]
) -> None:
    launcher = start_launcher()
    runs = [make_run("complete", number) for number in range(52)]
    codes: list[int | None] = []

    def some(mine: list[RunDir]) -> None:
        codes.extend([forked(launcher, run).wait(30) for run in mine])

    threads = [threading.Thread(target=some, args=(runs[number::4],)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == [0] * 52
    eventually(lambda: no_child_but(launcher.pid))
    assert len(os.listdir(f"/proc/{launcher.pid}/fd")) == len(os.listdir(f"/proc/{start_launcher().pid}/fd"))


def test_an_attempt_through_the_launcher(
    start_launcher: Callable[..., Launcher],
    host: Host,
    ticket: Callable[..., Ticket],
    book: Book,
    no_child_but: Callable[[int | None], bool],
) -> None:
    host.launcher = start_launcher()
    run_attempt(host, ticket(host, "complete"))
    assert eventually(lambda: book.finished("att_complete_1"))["reason"] == Reason.COMPLETED
    assert len(book.lines["att_complete_1"]) == 503
    with running(host, ticket(host, "deaf", 2)):
        eventually((run_dir(host, ticket(host, "deaf", 2)) / "train.json").exists)
        host.current()[0].stop(Cause.SHUTDOWN)
    finished = eventually(lambda: book.finished("att_deaf_2"))
    assert (finished["reason"], finished["exit_code"]) == (Reason.WORKER_SHUTDOWN, -15)
    eventually(lambda: no_child_but(host.launcher.pid))
