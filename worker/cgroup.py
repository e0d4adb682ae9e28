"""A cgroup of its own for each attempt, where this worker may make one: nothing that an attempt started outlives it.

Process groups and death signals do the same for all that does not hide from them; a cgroup also holds what begins a
session of its own, as torchrun's ranks do, and can be killed in one go. It takes cgroup v2 and the right to make groups
beside or below the worker's own.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

OURS = "trainyard"
EMPTY_SECONDS = 5.0

log = logging.getLogger("trainyard.cgroup")


class Cgroups:
    """Makes the groups; without the right to, those it gives do nothing."""

    def __init__(self, memory_bytes: int = 0, base: Path | None = None) -> None:
        """`memory_bytes` is what one attempt may take; `base` the folder to make groups in, found by itself."""
        self._memory_bytes = memory_bytes
        self.base = base if base is not None else _own_group()
        problem = self._problem()
        if problem is not None:
            log.info("attempts get no cgroup of their own: %s", problem)
            self.base = None

    def _problem(self) -> str | None:
        """What is in the way, found out by making a group and removing it again."""
        if self.base is None:
            return "there is no cgroup v2 here"
        trial = self.base / OURS / f"trial-{uuid4().hex}"
        try:
            trial.mkdir(parents=True)
            usable = (trial / "cgroup.kill").exists()
            trial.rmdir()
        except OSError as problem:
            return problem.strerror or type(problem).__name__
        return None if usable else "the kernel has no cgroup.kill"

    def folder_of(self, attempt_id: str) -> Path | None:
        """Of this worker alone: a second one on this host must not end what only bears the same name."""
        return None if self.base is None else self.base / OURS / f"{attempt_id}.{os.getpid()}"

    @contextmanager
    def of(self, attempt_id: str) -> Iterator[Group]:
        """The group of one stage of an attempt; all that is in it ends with the block."""
        group = Group(self.folder_of(attempt_id))
        group.make(self._memory_bytes)
        try:
            yield group
        finally:
            group.end()


class Group:
    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def make(self, memory_bytes: int) -> None:
        """A group that cannot be made is no reason not to train."""
        if self._folder is None:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            log.warning("no cgroup for this attempt: %s", problem)
            self._folder = None
            return
        if memory_bytes and not _limit_memory(self._folder, memory_bytes):
            log.warning("TRAINYARD_ATTEMPT_MEMORY_BYTES has no effect: the memory controller is not delegated to us")

    def take(self, pid: int) -> None:
        """`pid` and all that it will start belong to the group; one that has ended already needs none."""
        if self._folder is None:
            return
        try:
            (self._folder / "cgroup.procs").write_text(str(pid))
        except ProcessLookupError:
            return
        except OSError as problem:
            log.warning("process %d does not join its cgroup: %s", pid, problem)

    def end(self) -> None:
        """Kill whatever is left, and remove the group."""
        if self._folder is None:
            return
        (self._folder / "cgroup.kill").write_text("1")
        deadline = time.monotonic() + EMPTY_SECONDS
        while "populated 1" in (self._folder / "cgroup.events").read_text() and time.monotonic() < deadline:
            time.sleep(0.005)
        try:
            self._folder.rmdir()
        except OSError as problem:
            log.warning("a cgroup stays behind: %s", problem)


def _limit_memory(folder: Path, memory_bytes: int) -> bool:
    limit = folder / "memory.max"
    if not limit.exists():
        for above in (folder.parent.parent, folder.parent):
            _delegate_memory(above)
    if not limit.exists():
        return False
    limit.write_text(str(memory_bytes))
    return True


def _delegate_memory(group: Path) -> None:
    try:
        (group / "cgroup.subtree_control").write_text("+memory")
    except OSError as problem:
        log.debug("no memory controller below %s: %s", group.name, problem)


def _own_group() -> Path | None:
    """The folder of the cgroup v2 that this process is in."""
    mount, own = _mount(), _path()
    if mount is None or own is None:
        return None
    folder = mount / own.lstrip("/")
    return folder if os.access(folder, os.W_OK) else None


def _mount() -> Path | None:
    mounts = Path("/proc/self/mounts")
    lines = mounts.read_text().splitlines() if mounts.exists() else []
    return next((Path(line.split()[1]) for line in lines if line.split()[2] == "cgroup2"), None)


def _path() -> str | None:
    table = Path("/proc/self/cgroup")
    lines = table.read_text().splitlines() if table.exists() else []
    return next((line[len("0::") :] for line in lines if line.startswith("0::")), None)
