"""Named child processes with a log each, stopped in reverse order; none outlives us, whatever happens to us."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

CHILD = Path(__file__).with_name("child.py")
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


class Died(Exception):
    """A process ended that should run; the message holds the tail of its log."""


@dataclass(frozen=True)
class User:
    """Whom a process runs as; only root can ask for another."""

    user_id: int
    group_id: int


@dataclass
class Child:
    """A running process, leader of its own session, so that Ctrl-C in the terminal reaches us alone."""

    name: str
    popen: subprocess.Popen[bytes]
    log: Path
    stop_signal: signal.Signals = signal.SIGTERM
    stop_seconds: float = 10.0

    def check(self) -> None:
        """Raises `Died` when it no longer runs."""
        if (code := self.popen.poll()) is not None:
            raise Died(f"{self.name} ended with exit code {code}; the end of {self.log}:\n{tail(self.log)}")

    def signal(self, number: int) -> None:
        """To it and all of its process group; nothing happens when they are gone."""
        try:
            os.killpg(self.popen.pid, number)
        except (ProcessLookupError, PermissionError):
            self.popen.send_signal(number)

    def stop(self) -> None:
        """Asks it to stop, and kills what is left of its group after `stop_seconds`."""
        if self.popen.poll() is None:
            self.popen.send_signal(self.stop_signal)
        try:
            self.popen.wait(self.stop_seconds)
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
            self.popen.wait()
        except BaseException:  # a second Ctrl-C: no more patience, and still nothing left behind
            self.signal(signal.SIGKILL)
            raise
        self.signal(signal.SIGKILL)


def start(
    name: str,
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    log: Path,
    directory: Path,
    user: User | None = None,
    death_signal: signal.Signals = signal.SIGKILL,
    stop_signal: signal.Signals = signal.SIGTERM,
    stop_seconds: float = 10.0,
) -> Child:
    """Start `command`; it gets `death_signal` when the calling thread dies. Call this from the main thread."""
    who = f"{user.user_id}:{user.group_id}" if user else "-"
    shim = [sys.executable, "-I", "-S", str(CHILD), str(os.getpid()), str(int(death_signal)), who]
    with log.open("ab") as output:
        popen = subprocess.Popen(
            [*shim, *command],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=directory,
            start_new_session=True,
        )
    return Child(name, popen, log, stop_signal, stop_seconds)


def adopt_orphans() -> None:
    """Grandchildren whose parent died become our children, so that `end_orphans` finds them (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_orphans(deadline_seconds: float = 5.0) -> None:
    """Kill every child that is left, generation after generation. Only for when all that we started was stopped."""
    deadline = time.monotonic() + deadline_seconds
    while (children := _children()) and time.monotonic() < deadline:
        for process_id in children:
            try:
                os.kill(process_id, signal.SIGKILL)
                os.waitpid(process_id, 0)
            except (ProcessLookupError, ChildProcessError):
                continue


def _children() -> list[int]:
    try:
        return [int(number) for number in Path("/proc/thread-self/children").read_text().split()]
    except OSError:
        return []


def tail(log: Path, lines: int = 25) -> str:
    """The last lines of a log, indented."""
    try:
        text = log.read_text(errors="replace")
    except OSError:
        return "  (no log)"
    return "\n".join(f"  {line}" for line in text.splitlines()[-lines:]) or "  (the log is empty)"
