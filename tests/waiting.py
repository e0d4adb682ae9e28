"""Waiting for something to become true, with a deadline; and how much memory that took."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

Answer = TypeVar("Answer")


def eventually(condition: Callable[[], Answer], timeout: float = 10.0, interval_seconds: float = 0.02) -> Answer:
    """Call `condition` until its answer is true and return that answer; an assertion in it counts as "not yet"."""
    deadline = time.monotonic() + timeout
    while True:
        answer: Answer | None = None
        problem: AssertionError | None = None
        try:
            answer = condition()
        except AssertionError as not_yet:
            problem = not_yet
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise problem or AssertionError(f"not true within {timeout:g} s; last answer: {answer!r}")
        time.sleep(interval_seconds)


def peak() -> int:
    """KiB that this program has held at most. `ru_maxrss` would count what its parent held before it began."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
