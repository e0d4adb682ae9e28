"""Where the wall seconds of an attempt went."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

STEPS = ("data_wait", "transfer", "compute", "communication", "optimizer", "loop")
PHASES = ("waiting", "prepare", "startup", "evaluate", "checkpoint", "finish")


class PhaseClock:
    """Gives every wall second to exactly one name: what a lap ends, or the phase around it; `other` without one.

    `interruptions` counts the phases that began: steps between two equal counts followed each other directly.
    """

    def __init__(self, **seconds_before: float) -> None:
        """`seconds_before` are those of phases that other processes went through for this one."""
        self.seconds: dict[str, float] = defaultdict(float, seconds_before)
        self.mark = time.perf_counter()
        self._started = self.mark - sum(seconds_before.values())
        self._phase = "other"
        self.interruptions = 0

    def lap(self, name: str) -> None:
        """Give `name` what has passed since the last lap."""
        now = time.perf_counter()
        self.seconds[name] += now - self.mark
        self.mark = now

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """What passes within, but for laps and phases inside of it, belongs to `name`."""
        outer = self._phase
        self.lap(outer)
        self._phase = name
        self.interruptions += 1
        try:
            yield
        finally:
            self.lap(name)
            self._phase = outer

    def now(self) -> dict[str, float]:
        """Seconds by name, up to this moment; they add up to the seconds since the start."""
        self.lap(self._phase)
        return dict(self.seconds)

    def steps_seconds(self) -> float:
        """Of all steps so far, with what the loop does between them."""
        return sum(self.seconds[name] for name in STEPS)

    def account(self) -> dict[str, float]:
        """Seconds by phase in few words: the steps are `data` and `train`; with `other` and `total`."""
        seconds = self.now()
        data = seconds.get("data_wait", 0.0)
        told = {name: seconds.get(name, 0.0) for name in PHASES}
        told |= {"data": data, "train": sum(seconds.get(name, 0.0) for name in STEPS) - data}
        total = self.mark - self._started
        told |= {"other": max(0.0, total - sum(told.values())), "total": total}
        return {name: round(value, 4) for name, value in told.items()}
