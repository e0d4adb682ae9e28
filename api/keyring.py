"""Which keys are valid now: remembered for seconds, forgotten when the book says that one changed."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any, TypeVar

from fastapi.concurrency import run_in_threadpool
from sqlalchemy import func, or_, update
from sqlalchemy.exc import SQLAlchemyError
from sse_starlette import ServerSentEvent

from api import auth
from api.auth import Known, Principal
from api.book.database import Sessions
from api.book.models import ApiKey
from api.errors import Problem
from api.notifications import POLL_SECONDS, Notifications

USE_NOTED_EVERY = timedelta(minutes=1)
MOST_REMEMBERED = 10_000

T = TypeVar("T")
log = logging.getLogger("trainyard.api")


class Keyring:
    """One for each API process: refuses a key that ended at once where the bell came, else within `cache_seconds`."""

    def __init__(self, sessions: Sessions, notifications: Notifications, cache_seconds: float) -> None:
        self._sessions, self._bells, self._cache_seconds = sessions, notifications, cache_seconds
        self._remembered: dict[str, tuple[float, Known]] = {}
        self._changes = 0
        notifications.keys_changed = self.forget

    def forget(self, key_id: str | None) -> None:
        """Ask the book about this key again; about all of them without an id."""
        self._changes += 1
        if key_id is None:
            self._remembered.clear()
        self._remembered.pop(key_id or "", None)

    async def admit(self, header: str | None) -> Known:
        """The key in an `Authorization` header; raises a 401 unless it is valid now."""
        key_id, secret = auth.parse(header)
        key = await self._know(key_id)
        if not auth.matches(key, secret) or key is None:
            raise auth.unauthenticated("This API key is not known")
        key.check()
        await self._note_use(key)
        return key

    async def require(self, key_id: str) -> Known:
        """Raises a 401 once the key was revoked or has expired."""
        key = await self._know(key_id)
        if key is None:
            raise auth.unauthenticated("This API key is not known")
        key.check()
        return key

    async def during(self, caller: Principal, work: Awaitable[T]) -> T:
        """What `work` answers; it is cancelled, and a 401 raised, when the caller's key ends before."""
        task = asyncio.ensure_future(work)
        try:
            async with self._bells.listening(caller.key_id) as bell:
                while not task.done():
                    key = await self.require(caller.key_id)
                    await _either(task, bell, _seconds_until(key.expires_at))
                    bell.clear()
            return task.result()
        finally:
            task.cancel()

    async def stream(self, caller: Principal, told: AsyncIterator[ServerSentEvent]) -> AsyncIterator[ServerSentEvent]:
        """All that is told, as long as the caller's key is valid; the event `closed` says that it is not any more."""
        try:
            while (message := await self.during(caller, _next(told))) is not None:
                yield message
        except Problem as problem:
            if problem.status != HTTPStatus.UNAUTHORIZED:
                raise
            yield ServerSentEvent(event="closed", data=json.dumps({"code": problem.code, "message": problem.hint}))

    async def _know(self, key_id: str) -> Known | None:
        found = self._remembered.get(key_id)
        if found is not None and found[0] > time.monotonic():
            return found[1]
        return await run_in_threadpool(self._look_up, key_id)

    def _look_up(self, key_id: str) -> Known | None:
        changes = self._changes
        with self._sessions() as session:
            key = auth.known(session, key_id)
        if key is not None and changes == self._changes:  # else what was read may be older than the bell
            self._remember(key)
        return key

    def _remember(self, key: Known) -> None:
        if len(self._remembered) >= MOST_REMEMBERED:
            self._remembered.clear()
        self._remembered[key.key_id] = (time.monotonic() + self._cache_seconds, key)

    async def _note_use(self, key: Known) -> None:
        moment = datetime.now(UTC)
        if key.last_used_at is not None and moment - key.last_used_at < USE_NOTED_EVERY:
            return
        found = self._remembered.get(key.key_id)
        if found is not None:  # those who come meanwhile need not write it too
            self._remembered[key.key_id] = (found[0], replace(found[1], last_used_at=moment))
        await run_in_threadpool(self._write_use, key.key_id)

    def _write_use(self, key_id: str) -> None:
        due = or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at < func.now() - USE_NOTED_EVERY)
        try:
            with self._sessions.begin() as session:
                session.execute(update(ApiKey).where(ApiKey.id == key_id, due).values(last_used_at=func.now()))
        except SQLAlchemyError as error:  # no reason to refuse what was asked
            log.warning("the use of a key was not noted: %s", type(error).__name__)


async def _next(told: AsyncIterator[ServerSentEvent]) -> ServerSentEvent | None:
    return await anext(told, None)


async def _either(task: asyncio.Future[Any], bell: asyncio.Event, seconds: float) -> None:
    ringing: asyncio.Future[Any] = asyncio.ensure_future(bell.wait())
    try:
        await asyncio.wait({task, ringing}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        ringing.cancel()


def _seconds_until(expires_at: datetime | None) -> float:
    if expires_at is None:
        return POLL_SECONDS
    return max(0.01, min(POLL_SECONDS, (expires_at - datetime.now(UTC)).total_seconds()))
