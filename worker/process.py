"""The processes of one attempt: started with a clean environment, stopped in three steps, never left behind."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import psutil  # type: ignore[import-untyped]

from training_core.contract.run_dir import RunDir
from training_core.processes.handover import DESCRIPTOR, held_out
from training_core.processes.process import PARENT_PID
from training_core.runtime.launcher_protocol import Stage

LAUNCH = (sys.executable, "-m", "training_core.runtime.launch")
REAP_SECONDS = 5.0
YOUNG_SECONDS = 1.0

AWAITED: set[int] = set()  # children whose exit codes somebody is going to take

# What a training may know of this host. Whatever is not here, such as the broker's URL, it does not get.
ALLOWED_ENVIRONMENT = (
    "PATH", "HOME", "USER", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "PYTHONPATH", "VIRTUAL_ENV",
    "LD_LIBRARY_PATH", "CUDA_HOME", "NVIDIA_VISIBLE_DEVICES", "NCCL_DEBUG", "NCCL_SOCKET_IFNAME", "TORCH_HOME",
    "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE",
)  # fmt: skip


class Process:
    """A child of this worker that leads a session of its own."""

    def __init__(self, pid: int, reap: Callable[[], int] | None = None) -> None:
        """`reap` takes the exit code of a process that has ended; without it the kernel is asked."""
        self.pid = pid
        AWAITED.add(pid)
        self._reap = reap or self._ask_kernel
        self._descriptor = os.pidfd_open(pid)

    def wait(self, seconds: float) -> int | None:
        """The exit code, the negative number of a signal, or None when it has not ended after `seconds`."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        if not poll.poll(seconds * 1000):
            return None
        exit_code = self._reap()
        AWAITED.discard(self.pid)
        os.close(self._descriptor)
        self._clear()
        return exit_code

    def signal(self, number: signal.Signals) -> None:
        """To the process and to what it started."""
        signal_group(self.pid, number)

    def kill(self) -> None:
        """End it and all that it started at once, and forget it."""
        self.signal(signal.SIGKILL)
        while self.wait(REAP_SECONDS) is None:
            pass

    def _ask_kernel(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def _clear(self) -> None:
        """End whatever it started and did not take along, and bury what became ours by that."""
        signal_group(self.pid, signal.SIGKILL)
        reap_group(self.pid)


def signal_group(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return  # it has ended by itself, which is what we wanted


def reap_group(group: int) -> None:
    """Take the exit codes of all our children in a group that was killed; one that the kernel holds up is left."""
    deadline = time.monotonic() + REAP_SECONDS
    while time.monotonic() < deadline:
        try:
            pid, _ = os.waitpid(-group, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            time.sleep(0.005)


def bury_orphans() -> None:
    """Take the exit codes of those that became our children when their parents ended: nobody else waits for them.

    They led sessions of their own, as torchrun's ranks do, or `reap_group` would have found them.
    """
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess, ChildProcessError):
            # A child this young may be one of ours that another thread has only just begun.
            old = time.time() - child.create_time() > YOUNG_SECONDS
            if old and child.pid not in AWAITED and child.status() == psutil.STATUS_ZOMBIE:
                os.waitpid(child.pid, os.WNOHANG)


def environment(*, device: str, slots: Sequence[int], threads: int) -> dict[str, str]:
    """The child's whole environment; without slots it sees no GPU."""
    kept = {name: os.environ[name] for name in ALLOWED_ENVIRONMENT if name in os.environ}
    kept |= {
        "OMP_NUM_THREADS": str(threads),
        "PYTHONUNBUFFERED": "1",
        "CUDA_VISIBLE_DEVICES": ",".join(map(str, slots)) if device == "cuda" else "",
    }
    return kept


def launch(
    run_dir: RunDir, stage: Stage, variables: dict[str, str], program: Sequence[str] = LAUNCH,
    secret: bytes | None = None,
) -> Process:  # fmt: skip
    """Start `program RUN_DIR --stage STAGE` in a session of its own, and hand it the secret.

    The calling thread must outlive the child: the child asks the kernel to be killed when this thread ends.
    """
    with run_dir.log.open("ab") as output, held_out(secret) as descriptor:
        told = {} if descriptor is None else {DESCRIPTOR: str(descriptor)}
        child = subprocess.Popen(
            [*program, str(run_dir.path), "--stage", stage],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**variables, **told, PARENT_PID: str(os.getpid())},
            pass_fds=() if descriptor is None else (descriptor,),
            start_new_session=True,
        )
    return Process(child.pid, child.wait)
