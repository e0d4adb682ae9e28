"""Children start with a log, end with us, and leave nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from local.processes import Child, Died, User, start
from tests.waiting import eventually

ROOT = Path(__file__).parents[2]


def python(code: str, directory: Path, **options: object) -> Child:
    environment = {"PATH": os.environ["PATH"]}
    arguments = {"environment": environment, "log": directory / "log", "directory": directory, **options}
    return start("child", [sys.executable, "-c", code], **arguments)  # type: ignore[arg-type]


def test_a_child_that_ended_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    child = python("print('the reason why'); raise SystemExit(3)", tmp_path)
    child.popen.wait(10)
    with pytest.raises(Died, match=r"(?s)child ended with exit code 3.*the reason why"):
        child.check()


def test_a_program_that_does_not_exist_is_named(tmp_path: Path) -> None:
    child = start("child", ["/no/such/program"], environment={}, log=tmp_path / "log", directory=tmp_path)
    child.popen.wait(10)
    with pytest.raises(Died, match="/no/such/program: No such file or directory"):
        child.check()


def test_stopping_asks_first_and_then_kills_the_whole_group(tmp_path: Path) -> None:
    code = (
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']).pid, flush=True)\n"
        "time.sleep(60)"
    )
    child = python(code, tmp_path, stop_seconds=0.2)
    grandchild = int(eventually(lambda: (tmp_path / "log").read_text().strip()))
    child.stop()
    assert child.popen.returncode == -signal.SIGKILL
    eventually(lambda: not is_alive(grandchild))


def test_stopping_twice_and_stopping_the_dead_is_harmless(tmp_path: Path) -> None:
    child = python("pass", tmp_path)
    child.popen.wait(10)
    child.stop()
    child.stop()


def test_a_child_dies_when_its_parent_is_killed(tmp_path: Path) -> None:
    code = (
        "import pathlib, sys, time\n"
        "from local.processes import start\n"
        f"here = pathlib.Path({str(tmp_path)!r})\n"
        "child = start('sleep', ['/bin/sleep', '60'], environment={}, log=here / 'log', directory=here)\n"
        "print(child.popen.pid, flush=True)\n"
        "time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    with parent:
        assert parent.stdout is not None
        child_id = int(parent.stdout.readline())
        eventually(lambda: psutil.Process(child_id).name() == "sleep")
        parent.kill()
    eventually(lambda: not is_alive(child_id))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_root_can_start_a_child_as_another_user_that_still_dies_with_us(tmp_path: Path) -> None:
    child = start(
        "child",
        ["/bin/sh", "-c", "id -u; id -G; sleep 60"],
        environment={"PATH": "/bin:/usr/bin"},
        log=tmp_path / "log",
        directory=Path("/"),
        user=User(65534, 65534),
    )
    eventually(lambda: (tmp_path / "log").read_text() == "65534\n65534\n")
    child.stop()


def is_alive(process_id: int) -> bool:
    try:
        return psutil.Process(process_id).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
