"""Slots: what this host can lend. A slot is one GPU, or an equal share of the cores."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from training_core.planner.facts import cpu_name
from worker.settings import Settings

LOOK_SECONDS = 0.1


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
    """Lends indices of slots; the book counts too, so waiting here is short and rare."""

    def __init__(self, count: int) -> None:
        self._free = set(range(count))
        self._changed = threading.Condition()

    @contextmanager
    def hold(self, count: int, seconds: float, given_up: Callable[[], bool]) -> Iterator[list[int] | None]:
        """The lowest `count` free slots, given back at the end; None when they did not come free within `seconds`.

        Nobody wakes the waiter when `given_up` turns true: it looks by itself.
        """
        taken = self._take(count, time.monotonic() + seconds, given_up)
        try:
            yield taken
        finally:
            with self._changed:
                self._free |= set(taken or ())
                self._changed.notify_all()

    def _take(self, count: int, deadline: float, given_up: Callable[[], bool]) -> list[int] | None:
        with self._changed:
            while len(self._free) < count:
                left_seconds = deadline - time.monotonic()
                if left_seconds <= 0 or given_up():
                    return None
                self._changed.wait(min(left_seconds, LOOK_SECONDS))
            taken = sorted(self._free)[:count]
            self._free -= set(taken)
            return taken
