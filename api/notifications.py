"""Wakes waiting requests: one LISTEN connection per API process, fanned out by job and by key.

A notification carries nothing and may be lost; whoever waits looks into the book again after at most two seconds.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import psycopg

from api.book.events import JOBS_CHANNEL, KEYS_CHANNEL
from api.settings import Settings

POLL_SECONDS = 2.0

log = logging.getLogger("trainyard.api")


class Notifications:
    """`async with notifications.listening(job_id) as changed: await changed.wait(…)`.

    `keys_changed` is called with the id of each key that ends, and with None when one may have been missed.
    """

    def __init__(self, settings: Settings) -> None:
        self._url = settings.database_url.get_secret_value().replace("postgresql+psycopg://", "postgresql://", 1)
        self._waiting: dict[str, set[asyncio.Event]] = defaultdict(set)
        self.keys_changed: Callable[[str | None], None] = lambda _: None

    @asynccontextmanager
    async def listening(self, name: str) -> AsyncIterator[asyncio.Event]:
        """An event that is set whenever the job or key of this id changes; clear it before looking into the book."""
        changed = asyncio.Event()
        self._waiting[name].add(changed)
        try:
            yield changed
        finally:
            self._waiting[name].discard(changed)
            if not self._waiting[name]:
                del self._waiting[name]

    async def run(self) -> None:
        """Listen until cancelled, through every loss of the connection."""
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(self._url, autocommit=True, connect_timeout=5) as line:
                    for channel in (JOBS_CHANNEL, KEYS_CHANNEL):
                        await line.execute(f"LISTEN {channel}")
                    self.keys_changed(None)
                    self._wake_all()
                    async for note in line.notifies():
                        if note.channel == KEYS_CHANNEL:
                            self.keys_changed(note.payload)
                        for changed in self._waiting.get(note.payload, ()):
                            changed.set()
            except psycopg.Error as error:
                log.warning("notifications: %s; again in 1 s", type(error).__name__)
                await asyncio.sleep(1)

    def _wake_all(self) -> None:
        for waiting in self._waiting.values():
            for changed in waiting:
                changed.set()


async def ring(bell: asyncio.Event, seconds: float) -> None:
    """Wait for the bell, but no longer than `seconds`."""
    with suppress(TimeoutError):
        await asyncio.wait_for(bell.wait(), seconds)
