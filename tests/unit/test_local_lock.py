"""One `up` at a time, and a pid file that a crash left behind counts for nothing; one interruption at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.interruption import Interruption
from local.lock import AlreadyRuns, PidFile

ROOT = Path(__file__).parents[2]
HOLD = "import sys, pathlib, time; from local.lock import PidFile; PidFile(pathlib.Path(sys.argv[1])).acquire(); print(1, flush=True); time.sleep(60)"  # noqa: E501


def test_a_pid_file_is_held_until_its_process_dies(tmp_path: Path) -> None:
    pid_file = PidFile(tmp_path / "pid")
    assert pid_file.holder() is None
    with subprocess.Popen([sys.executable, "-c", HOLD, str(pid_file.path)], cwd=ROOT, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        assert pid_file.holder() == other.pid
        with pytest.raises(AlreadyRuns, match=str(other.pid)):
            pid_file.acquire()
        assert not pid_file.wait_until_free(0.1)
        other.kill()
    assert pid_file.path.exists()
    assert pid_file.wait_until_free(5)
    pid_file.acquire()
    assert pid_file.path.read_text() == f"{os.getpid()}\n"


@pytest.fixture
def handlers() -> Iterator[None]:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_interrupts_and_the_next_ones_hurry(handlers: None, number: signal.Signals) -> None:
    hurried: list[int] = []
    interruption = Interruption()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(number)
    signal.raise_signal(number)
    interruption.close(lambda: hurried.append(1))
    assert hurried == []
    signal.raise_signal(number)
    assert hurried == [1]


def test_once_cleaning_up_nothing_is_interrupted(handlers: None) -> None:
    hurried: list[int] = []
    Interruption().close(lambda: hurried.append(1))
    signal.raise_signal(signal.SIGINT)
    assert hurried == [1]
