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

from worker.settings import Settings

LOOK_SECONDS = 0.1


@dataclass(frozen=True)
class Devices:
    kind: str
    name: str
    slots: int


def find_devices(settings: Settings) -> Devices:
    """The host's GPUs by `nvidia-smi`, or its cores; raises `ValueError` when asked for GPUs that are not there."""
    gpus = [] if settings.device == "cpu" else _gpu_names()
    if gpus:
        return Devices("cuda", gpus[0], settings.slots or len(gpus))
    if settings.device == "cuda":
        raise ValueError("TRAINYARD_DEVICE is cuda, but nvidia-smi lists no GPU on this host")
    return Devices("cpu", platform.processor() or platform.machine(), settings.slots or 1)


def _gpu_names() -> list[str]:
    if shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False)
    return done.stdout.split("\n")[:-1] if done.returncode == 0 else []


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
