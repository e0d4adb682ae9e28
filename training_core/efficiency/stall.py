"""A training that stands still leaves its stacks in the log.

Python's `faulthandler` keeps the time in a thread of its own that needs no interpreter lock: it writes what every
thread is doing also while one of them hangs in a call that never returns. The alert follows when the training goes on:
the events have one writer. The worker ends an attempt that never does.
"""

from __future__ import annotations

import faulthandler
import sys
import time

# Longer than any step that is only slow, yet shorter than the worker's patience.
LEAST_SECONDS, MEAN_STEPS = 30.0, 20.0


class StallWatch:
    """Expects a step within `patience` seconds, unless it is paused."""

    def __init__(self) -> None:
        self.patience = LEAST_SECONDS
        self._armed_at: float | None = None

    def is_due(self, now: float) -> bool:
        """Whether to wind it up after this step: not after each, since that starts a thread."""
        return self._armed_at is None or now - self._armed_at >= self.patience / 4

    def wind(self, mean_step_seconds: float) -> None:
        """A step is done, and the next one is expected."""
        self.patience = max(LEAST_SECONDS, MEAN_STEPS * mean_step_seconds)
        if sys.__stderr__ is not None:
            faulthandler.dump_traceback_later(self.patience, file=sys.__stderr__, exit=False)
        self._armed_at = time.perf_counter()

    def pause(self) -> None:
        """What comes now is no step, and may take its time."""
        if self._armed_at is not None:
            faulthandler.cancel_dump_traceback_later()
            self._armed_at = None
