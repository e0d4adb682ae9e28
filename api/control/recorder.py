"""Redis stream -> book. Reads what lies in the stream, writes it, acknowledges, then trims what was read.

There is one reader, the leader, so the stream needs no consumer group: whatever was not trimmed is read again, and
reading twice is harmless. A flushed Redis costs nothing: journals send again what the book does not acknowledge.
"""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from typing import cast

import redis
from sqlalchemy.exc import DataError, IntegrityError

from api.book.database import Sessions
from api.control.reports import apply_lines
from training_core.contract.messages import RECORDED_HASH, REPORTS_STREAM

BATCH_ENTRIES = 500
BLOCK_MILLISECONDS = 1000

log = logging.getLogger("trainyard.recorder")

Entry = tuple[bytes, dict[bytes, bytes]]


class Recorder:
    """One pass reads and writes one batch."""

    def __init__(self, sessions: Sessions, client: redis.Redis, losses_limit: int) -> None:
        self._sessions, self._redis, self._losses_limit = sessions, client, losses_limit

    def __call__(self, stop: threading.Event) -> None:
        while not stop.is_set():
            self.record_batch(BLOCK_MILLISECONDS)

    def record_batch(self, block_milliseconds: int | None = None) -> int:
        """Write the oldest entries of the stream into the book; returns how many were read."""
        found = self._redis.xread({REPORTS_STREAM: "0-0"}, count=BATCH_ENTRIES, block=block_milliseconds)
        entries = cast("list[tuple[bytes, list[Entry]]]", found)[0][1] if found else []
        recorded = {
            attempt_id: self._write(attempt_id.decode(errors="replace"), batch)
            for attempt_id, batch in _by_attempt(entries).items()
        }
        if entries:
            pipe = self._redis.pipeline(transaction=True)
            pipe.hset(RECORDED_HASH, mapping=recorded)  # type: ignore[arg-type]
            pipe.xdel(REPORTS_STREAM, *(entry_id for entry_id, _ in entries))
            pipe.execute()
        return len(entries)

    def _write(self, attempt_id: str, batch: list[Entry]) -> int:
        lines = [fields.get(b"line", b"") for _, fields in batch]
        try:
            with self._sessions.begin() as session:
                return apply_lines(session, attempt_id, lines, self._losses_limit)
        except (DataError, IntegrityError) as error:
            log.error("a report of %s was refused: %s", attempt_id, type(error.orig).__name__)
        with self._sessions.begin() as session:
            return apply_lines(session, attempt_id, lines, self._losses_limit, careful=True)


def _by_attempt(entries: list[Entry]) -> dict[bytes, list[Entry]]:
    grouped: dict[bytes, list[Entry]] = defaultdict(list)
    for entry in entries:
        grouped[entry[1].get(b"attempt", b"")].append(entry)
    return grouped
