"""A training process is a good neighbour: it never outlives who started it, and never spins on cores it only shares."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

PARENT_PID = "TRAINYARD_PARENT_PID"
# Torchrun starts the ranks of a run, and it is ours: they end with it.
RANKS_PARENT_PID = "TRAINYARD_RANKS_PARENT_PID"

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def end_with_parent(parent_pid_variable: str = PARENT_PID) -> None:
    """Have the kernel kill this process when its parent dies (Linux; elsewhere nothing happens).

    `parent_pid_variable` names the environment variable in which the parent left its own process id.
    """
    expected = os.environ.pop(parent_pid_variable, None)
    if expected is not None:
        die_with(int(expected))


def die_with(parent_pid: int) -> None:
    """Have the kernel kill this process when its parent, `parent_pid`, dies; if that has happened, now."""
    if sys.platform != "linux":
        return
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # Closes the gap in which the parent died before the kernel knew of our wish.
    if os.getppid() != parent_pid:
        os.kill(os.getpid(), signal.SIGKILL)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends (Linux)."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}) failed")


def yield_to_others(niceness: int) -> None:
    """Let everything else on this host go before all threads of this process, and those to come.

    Where Linux schedules by sessions (`sched_autogroup_enabled`), niceness counts within a session alone: one that is
    ours alone is made nice as a whole, if the kernel lets us.
    """
    value = min(19, os.getpriority(os.PRIO_PROCESS, 0) + niceness)
    tasks = Path("/proc/self/task")
    for task in [int(one.name) for one in tasks.iterdir()] if tasks.exists() else [0]:
        with suppress(ProcessLookupError):  # a thread that has ended since
            os.setpriority(os.PRIO_PROCESS, task, value)
    if os.getsid(0) == os.getpid():
        with suppress(OSError):
            Path("/proc/self/autogroup").write_text(str(niceness))


def share_cores() -> None:
    """Make libraries good neighbours of each other and of a fork. Call before numpy, pyarrow and torch are imported.

    OpenMP's idle threads sleep: spinning costs up to six times the speed as soon as anything else runs on the same
    cores (measured on two). OpenBLAS and pyarrow's jemalloc start no thread by being imported.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("JE_ARROW_MALLOC_CONF", "background_thread:false")


def threads() -> list[str]:
    """Names of all threads of this process, those of libraries included; a fork is safe when there is one."""
    tasks = Path("/proc/self/task")
    return [(task / "comm").read_text().strip() for task in tasks.iterdir()] if tasks.exists() else ["?"]


def leave(code: int) -> NoReturn:
    """End this process here and now, after its last words are written.

    An interpreter that is taken down under the C++ threads of torch and gloo may abort, although all work is done
    (seen: "terminate called without an active exception", exit code -6).
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
