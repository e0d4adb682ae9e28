"""Slots: what this host can lend, whole or in parts. A slot is one GPU, or an equal part of the cores."""

from __future__ import annotations

import math
import os
import platform
import shutil
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from training_core.planner.facts import cpu_name
from worker.settings import Settings

LOOK_SECONDS = 0.1
ROUNDING = 1e-9  # three thirds are a whole


@dataclass(frozen=True)
class Devices:
    """`memory_bytes` is what one GPU has; 0 without GPUs."""

    kind: str
    name: str
    slots: int
    memory_bytes: int = 0


def find_devices(settings: Settings) -> Devices:
    """The host's GPUs by `nvidia-smi`, or its cores; raises `ValueError` when asked for GPUs that are not there."""
    gpus = [] if settings.device == "cpu" else _gpus()
    if gpus:
        name, memory_bytes = gpus[0]
        return Devices("cuda", name, settings.slots or len(gpus), memory_bytes)
    if settings.device == "cuda":
        raise ValueError("TRAINYARD_DEVICE is cuda, but nvidia-smi lists no GPU on this host")
    return Devices("cpu", cpu_name() or platform.machine(), settings.slots or 1)


def _gpus() -> list[tuple[str, int]]:
    """Name and bytes of memory of each."""
    if shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    done = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False)
    return parse_gpus(done.stdout) if done.returncode == 0 else []


def parse_gpus(table: str) -> list[tuple[str, int]]:
    """Lines of a name and MiB (`NVIDIA H100 80GB HBM3, 81559`); memory that nvidia-smi does not tell counts as 0."""
    rows = [line.rpartition(",") for line in table.splitlines() if "," in line]
    return [(name.strip(), int(size) * 2**20 if size.strip().isdigit() else 0) for name, _, size in rows]


def allowed_cores() -> int:
    """Cores this process may use, which in a container is less than the host has."""
    return len(os.sched_getaffinity(0))


class Slots:
    """Lends slots whole or in parts, first come first served: small shares never keep a whole request waiting for ever.

    The book counts too, so that only a trial that was sent ahead of a free slot waits long.
    """

    def __init__(self, count: int) -> None:
        self._lent: list[list[float]] = [[] for _ in range(count)]  # the parts of each slot that are in use
        self._line: deque[object] = deque()
        self._changed = threading.Condition()

    @contextmanager
    def hold(
        self, count: int, share: float, seconds: float, given_up: Callable[[], bool]
    ) -> Iterator[list[int] | None]:
        """Indices of `count` slots of which `share` is ours, given back at the end; None when `seconds` were too few.

        Nobody wakes the waiter when `given_up` turns true: it looks by itself.
        """
        taken = self._take(count, share, time.monotonic() + seconds, given_up)
        try:
            yield taken
        finally:
            with self._changed:
                for index in taken or ():
                    self._lent[index].remove(share)
                self._changed.notify_all()

    def _take(self, count: int, share: float, deadline: float, given_up: Callable[[], bool]) -> list[int] | None:
        me = object()
        with self._changed:
            self._line.append(me)
            try:
                while not given_up():
                    found = self._find(count, share) if self._line[0] is me else None
                    if found is not None:
                        for index in found:
                            self._lent[index].append(share)
                        return found
                    if (left_seconds := deadline - time.monotonic()) <= 0:
                        return None
                    self._changed.wait(min(left_seconds, LOOK_SECONDS))
                return None
            finally:
                self._line.remove(me)
                self._changed.notify_all()  # the next in line may fit in as well

    def _find(self, count: int, share: float) -> list[int] | None:
        """Those with the least room that is enough: a share goes beside other shares, and whole slots stay whole."""
        room = {index: 1 - math.fsum(parts) for index, parts in enumerate(self._lent)}
        fitting = [index for index in sorted(room, key=lambda one: (room[one], one)) if room[index] >= share - ROUNDING]
        return sorted(fitting[:count]) if len(fitting) >= count else None


def threads_of(share: float, threads: int) -> int:
    """Threads of a rank that takes `share` of a slot with `threads` cores."""
    return max(1, round(threads * share))
