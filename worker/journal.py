"""Ships the reports of all runs to the Redis stream, in order, until the book has acknowledged each.

The run's own `events.jsonl` is the spool: nothing is kept in memory but offsets. What is not acknowledged within two
seconds is sent again from the last acknowledged number; the recorder passes over what it knows and refuses gaps.
Whatever it sends tells nothing of this host's folders (`redaction.py`).
"""

from __future__ import annotations

import json
import logging
import shutil
import threading
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path

import redis
from redis.exceptions import RedisError

from training_core.contract.messages import RECORDED_HASH, REPORTS_STREAM, Ticket
from training_core.contract.run_dir import RunDir, complete_lines
from worker.redaction import Redaction

POLL_SECONDS = 0.1
RESEND_SECONDS = 2.0
WINDOW_LINES = 2000
KEEP_SECONDS = 24 * 3600.0

TICKET_FILE = "ticket.json"
DONE_FILE = "journaled"

log = logging.getLogger("trainyard.journal")


class Spool:
    """How far one run's file was sent and acknowledged."""

    def __init__(self, run_dir: RunDir, ticket: Ticket, places: Mapping[str, str]) -> None:
        self.run_dir, self.ticket = run_dir, ticket
        self._redacted = Redaction(places, ticket.spec)
        self.closed = False  # nobody writes any more
        self._acknowledged = 0
        self._safe_offset = 0  # behind the last acknowledged line
        self._sent_offset = 0
        self._in_flight: deque[tuple[int, int]] = deque()  # (sequence number, offset behind the line)
        self._progress_at = time.monotonic()

    def next_lines(self) -> list[bytes]:
        """Complete lines not sent yet, as many as the window allows; they count as sent."""
        if self._in_flight and time.monotonic() - self._progress_at > RESEND_SECONDS:
            self._rewind(self._safe_offset)
        lines = []
        for line, end in complete_lines(self.run_dir.events, self._sent_offset):
            if len(self._in_flight) >= WINDOW_LINES:
                break
            if not self._in_flight:
                self._progress_at = time.monotonic()
            self._in_flight.append((json.loads(line)["seq"], end))
            self._sent_offset = end
            lines.append(self._redacted(line))
        return lines

    def acknowledge(self, recorded: int) -> None:
        """Take note of the book's number; a lower one than before means that the book needs all of it again."""
        if recorded < self._acknowledged:
            self._acknowledged, self._safe_offset = recorded, 0
            self._rewind(0)
        while self._in_flight and self._in_flight[0][0] <= recorded:
            _, self._safe_offset = self._in_flight.popleft()
        if recorded > self._acknowledged:
            self._acknowledged = recorded
            self._progress_at = time.monotonic()

    def _rewind(self, offset: int) -> None:
        self._in_flight.clear()
        self._sent_offset = offset
        self._progress_at = time.monotonic()

    @property
    def done(self) -> bool:
        """Nobody writes any more, and every complete line is in the book."""
        if not self.closed or self._in_flight:
            return False
        return next(complete_lines(self.run_dir.events, self._sent_offset), None) is None


class Journal:
    """One thread for all runs of the host, those that a former process left behind included."""

    def __init__(self, client: redis.Redis, runs: Path, places: Mapping[str, str]) -> None:
        self._redis, self._runs, self._places = client, runs, places
        self._spools: dict[str, Spool] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._bell = threading.Event()
        self._drained = threading.Condition(self._lock)
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)

    def start(self) -> None:
        """Pick up what a former process of this host could not send, then ship for ever."""
        for path in self._runs.glob("*/*/*"):
            if (path / DONE_FILE).exists():
                _forget_when_old(path)
            elif (path / TICKET_FILE).exists():
                self.add(RunDir(path), Ticket.model_validate_json((path / TICKET_FILE).read_bytes())).closed = True
        self._thread.start()

    def add(self, run_dir: RunDir, ticket: Ticket) -> Spool:
        """Ship this run, from what its file holds already on; `close` the answer once its last line is written."""
        spool = Spool(run_dir, ticket, self._places)
        with self._lock:
            self._spools[ticket.attempt_id] = spool
        self._bell.set()
        return spool

    def close(self, spool: Spool) -> None:
        """Nobody writes any more; somebody waits for the last line."""
        spool.closed = True
        self._bell.set()

    def stop(self, drain_seconds: float) -> bool:
        """Give the last lines time to arrive; False when some stay in the spool for the next start."""
        with self._drained:
            drained = self._drained.wait_for(lambda: not self._spools, drain_seconds)
        self._stop.set()
        self._bell.set()
        self._thread.join()
        return drained

    def _run(self) -> None:
        pause_seconds = 0.0
        while not self._stop.wait(pause_seconds):
            self._bell.wait(POLL_SECONDS)
            self._bell.clear()
            try:
                self.ship()
                pause_seconds = 0.0
            except RedisError as error:
                pause_seconds = min(max(pause_seconds * 2, 0.5), 5.0)
                log.warning("Redis: %s; reports stay in their files", type(error).__name__)

    def ship(self) -> None:
        """Send what is new of every run, and take note of what was recorded."""
        with self._lock:
            spools = list(self._spools.values())
        if not spools:
            return
        for spool in spools:
            self._send(spool)
        numbers = self._redis.hmget(RECORDED_HASH, [spool.ticket.attempt_id for spool in spools])
        for spool, number in zip(spools, numbers, strict=True):
            if number is not None:
                spool.acknowledge(int(number))
            if spool.done:
                (spool.run_dir.path / DONE_FILE).touch()
                with self._drained:
                    del self._spools[spool.ticket.attempt_id]
                    self._drained.notify_all()

    def _send(self, spool: Spool) -> None:
        lines = spool.next_lines()
        if not lines:
            return
        pipe = self._redis.pipeline(transaction=False)
        for line in lines:
            pipe.xadd(REPORTS_STREAM, {"attempt": spool.ticket.attempt_id, "job": spool.ticket.job_id, "line": line})
        pipe.execute()


def _forget_when_old(path: Path) -> None:
    if time.time() - (path / DONE_FILE).stat().st_mtime > KEEP_SECONDS:
        shutil.rmtree(path)
