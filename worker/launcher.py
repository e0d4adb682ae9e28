"""Keeps a warm launcher ready, and asks it for processes; whoever gets none starts a cold one.

What the launcher forks becomes a child of this worker (`training_core.runtime.launcher`), so that an ended or replaced
launcher takes no run along, and exit codes and signals arrive as from any child.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import training_core
from training_core.contract.run_dir import RunDir
from training_core.processes.handover import held_out
from training_core.processes.process import PARENT_PID, adopt_orphans
from training_core.processes.title import PADDING
from training_core.runtime.launcher_protocol import READY, RUNNING, Go, Order, Stage
from worker.process import Process, environment, reap_group, signal_group
from worker.settings import Settings

PROGRAM = (sys.executable, "-m", "training_core.runtime.launcher")
START_SECONDS = 120.0
ANSWER_SECONDS = 2.0
PID_BYTES = 32
LOOK_SECONDS = 0.2
WATCH_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0

log = logging.getLogger("trainyard.launcher")


class Launcher:
    """Any thread may ask for a process; one thread of its own starts and replaces the warm one."""

    def __init__(self, settings: Settings, program: Sequence[str] = PROGRAM) -> None:
        self._orders, self._program = settings.launcher_orders, program
        self._warm: Warm | None = None
        self._lock = threading.Lock()
        self._wanted = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._keep, name="launcher", daemon=True)

    def start(self) -> None:
        """Returns at once; runs begin cold until the launcher is ready."""
        adopt_orphans()
        self._thread.start()

    def stop(self) -> None:
        self._stopping = True
        self._wanted.set()
        self._thread.join()

    @property
    def pid(self) -> int | None:
        """Of the launcher that is ready now."""
        with self._lock:
            return self._warm.pid if self._warm else None

    def standby(self, run_dir: RunDir, stage: Stage) -> Standby | None:
        """A process that will carry out a stage once it is told to, or None without a launcher to be trusted."""
        with self._lock:
            warm = self._warm
            if warm is None:
                return None
            standby = warm.fork(run_dir, stage) if warm.fit else None
            if standby is None:
                self._give_up(warm)
            elif warm.orders >= self._orders:
                self._wanted.set()
            return standby

    def begin(self, standby: Standby, variables: dict[str, str], secret: bytes | None = None) -> Process | None:
        """The process that has begun now; None when it cannot, or grew from code that has been replaced since."""
        process = standby.begin(variables, secret) if standby.warm.code == code_version() else None
        if process is None:
            standby.dismiss()
            with self._lock:
                if self._warm is standby.warm:
                    self._give_up(standby.warm)
        else:
            standby.warm.served = True
        return process

    def launch(
        self, run_dir: RunDir, stage: Stage, variables: dict[str, str], secret: bytes | None = None
    ) -> Process | None:
        """Both at once; None as for them."""
        standby = self.standby(run_dir, stage)
        return None if standby is None else self.begin(standby, variables, secret)

    def _give_up(self, warm: Warm) -> None:
        log.info("the launcher is out of date or does not answer; it is replaced")
        warm.end()
        self._warm = None
        self._wanted.set()

    def _keep(self) -> None:
        """Every launcher is a child of this very thread, and the kernel ends it with us."""
        pause_seconds = 0.0
        while not self._stopping:
            fresh = self._grow()
            if fresh is not None:
                self._swap(fresh)
                log.info("the launcher is ready: runs start warm")
                while fresh.fit and not self._wanted.wait(WATCH_SECONDS):
                    pass
                self._wanted.clear()
            # One that never served a run may never do.
            served = fresh is not None and fresh.served
            pause_seconds = 0.0 if served else min(max(1.0, 2 * pause_seconds), LONGEST_PAUSE_SECONDS)
            self._wanted.wait(0.0 if self._stopping else pause_seconds)
        self._swap(None)

    def _grow(self) -> Warm | None:
        """A new launcher that is ready, or None when it does not come to that."""
        try:
            fresh = Warm(self._program)
        except OSError as error:
            log.warning("the launcher cannot be started: %s", error)
            return None
        if fresh.becomes_ready(lambda: self._stopping):
            return fresh
        fresh.end()
        if not self._stopping:
            log.warning("the launcher does not become ready; runs start cold")
        return None

    def _swap(self, fresh: Warm | None) -> None:
        with self._lock:
            old, self._warm = self._warm, fresh
            if old is not None:
                old.end()


class Warm:
    """One launcher process, from its start to its end."""

    def __init__(self, program: Sequence[str]) -> None:
        self.code = code_version()
        self.orders, self.served = 0, False
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # It holds no GPU and runs nothing itself: whatever a run may know comes with its order.
        variables = environment(device="cpu", slots=(), threads=1) | {PARENT_PID: str(os.getpid())}
        with theirs:
            self._process = subprocess.Popen(
                [*program, str(theirs.fileno()), PADDING],
                stdin=subprocess.DEVNULL,
                env=variables,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def fit(self) -> bool:
        """Alive, and grown from the code that lies on the disk now."""
        return self._process.poll() is None and self.code == code_version()

    def becomes_ready(self, given_up: Callable[[], bool]) -> bool:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and not given_up():
            if select.select([self._control], [], [], LOOK_SECONDS)[0]:
                return self._control.recv(len(READY)) == READY
        return False

    def fork(self, run_dir: RunDir, stage: Stage) -> Standby | None:
        """None without an answer in time; then this launcher has to be ended, and what it may have begun with it."""
        order = Order(run_dir=run_dir.path, stage=stage, parent_pid=os.getpid())
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._control.settimeout(ANSWER_SECONDS)
            with theirs:
                socket.send_fds(self._control, [order.model_dump_json().encode()], [theirs.fileno()])
            ours.settimeout(ANSWER_SECONDS)
            answer = ours.recv(PID_BYTES)
        except OSError:
            answer = b""
        if not answer:
            ours.close()
            return None
        self.orders += 1
        return Standby(self, Process(int(answer)), ours)

    def end(self) -> None:
        """Everything of its session: also children that had not begun when it was ended."""
        self._control.close()
        signal_group(self.pid, signal.SIGKILL)
        self._process.wait()
        reap_group(self.pid)


class Standby:
    """A child of this worker that was forked and waits to be told to begin. It holds nothing but its memory."""

    def __init__(self, warm: Warm, child: Process, line: socket.socket) -> None:
        self.warm, self.over = warm, False
        self._child, self._line = child, line

    @property
    def pid(self) -> int:
        return self._child.pid

    def begin(self, variables: dict[str, str], secret: bytes | None = None) -> Process | None:
        """None when it does not answer; then it is to be dismissed."""
        go = Go(environment=variables).model_dump_json().encode()
        with self._line, held_out(secret) as descriptor:
            try:
                socket.send_fds(self._line, [go], [] if descriptor is None else [descriptor])
                running = self._line.recv(len(RUNNING)) == RUNNING
            except OSError:
                running = False
        self.over = running
        return self._child if running else None

    def dismiss(self) -> None:
        """End it, and whatever it may have begun."""
        self.over = True
        self._line.close()
        self._child.kill()


def code_version() -> int:
    """Changes with every deployed file: a launcher that has imported the old ones must not serve any more."""
    try:
        files = sorted(Path(training_core.__path__[0]).rglob("*.py")) + _libraries()
        return hash(tuple((str(path), path.stat().st_mtime_ns) for path in files))
    except FileNotFoundError:
        return time.monotonic_ns()  # a file went while we looked: the next look sees something else again


def _libraries() -> list[Path]:
    """The first file of each large one; it is looked for, and not imported."""
    specs = (importlib.util.find_spec(name) for name in ("torch", "torchvision"))
    return [Path(spec.origin) for spec in specs if spec is not None and spec.origin is not None]
