"""Where the wall seconds of an attempt went."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

PHASES = ("prepare", "startup", "data", "train", "evaluate", "checkpoint")


class PhaseClock:
    """Adds up wall seconds by phase; what no phase claims is `other`."""

    def __init__(self, *, started_before_seconds: float = 0.0) -> None:
        self._started = time.perf_counter() - started_before_seconds
        self.seconds = dict.fromkeys(PHASES, 0.0)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - start

    def account(self) -> dict[str, float]:
        """Seconds by phase, with `other` and `total`."""
        total = time.perf_counter() - self._started
        other = max(0.0, total - sum(self.seconds.values()))
        return {name: round(value, 4) for name, value in {**self.seconds, "other": other, "total": total}.items()}
