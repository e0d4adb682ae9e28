"""Ends a run that has to end: the stop file first, SIGTERM after its grace, SIGKILL after the next."""

from __future__ import annotations

import signal
import time

from training_core.contract.errors import Reason
from worker.host import Run
from worker.outcome import Cause
from worker.process import Process
from worker.settings import Settings


class Stopper:
    """One for an attempt, over both of its stages."""

    def __init__(self, settings: Settings, run: Run) -> None:
        self._settings, self._run = settings, run
        self._heard_at = time.monotonic()
        self._limit, self._limit_at = Cause.TIME_LIMIT, self._heard_at + self._longest_seconds
        self._heard: tuple[int, int] = (0, 0)
        self._asked_at: float | None = None
        self._terminated: int | None = None

    @property
    def _longest_seconds(self) -> float:
        return self._run.ticket.spec.compute.max_hours * 3600

    def slots_held(self) -> None:
        """From now on it is the devices whose time counts, and no longer that of the preparation."""
        ticket = self._run.ticket
        seconds = self._longest_seconds if ticket.train_seconds is None else ticket.train_seconds
        self._limit_at = time.monotonic() + seconds
        if ticket.ends_because is Reason.BUDGET_EXHAUSTED:
            self._limit = Cause.BUDGET

    def look(self, process: Process) -> None:
        """Notice limits, then press one step harder where the time for it has come."""
        now = time.monotonic()
        self._notice(now)
        if self._run.cause is None:
            return None
        if self._run.cause in (Cause.ABANDONED, Cause.STALLED):
            return process.signal(signal.SIGKILL)
        if self._asked_at is None:
            self._asked_at = now
            return self._run.run_dir.request_stop()
        waited_seconds = now - self._asked_at
        if waited_seconds > self._settings.stop_grace_seconds + self._settings.term_grace_seconds:
            process.signal(signal.SIGKILL)
        elif waited_seconds > self._settings.stop_grace_seconds and self._terminated != process.pid:
            self._terminated = process.pid
            process.signal(signal.SIGTERM)
        return None

    def _notice(self, now: float) -> None:
        """A report is a sign of life, and so is the touch of a preparation that has nothing to report yet."""
        state = self._run.run_dir.events.stat()
        if (state.st_size, state.st_mtime_ns) != self._heard:
            self._heard, self._heard_at = (state.st_size, state.st_mtime_ns), now
        if now > self._limit_at:
            self._run.stop(self._limit)
        elif now - self._heard_at > self._settings.stall_seconds:
            self._run.stop(Cause.STALLED)
