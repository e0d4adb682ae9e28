"""Answers with one job or dataset check: with its ETag, and held back until it changed if the client wants to wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from fastapi import Response
from fastapi.concurrency import run_in_threadpool
from sse_starlette.sse import AppStatus

from api import schemas
from api.book.models import Job
from api.book.status import TERMINAL
from api.downloads import is_known
from api.notifications import Notifications, ring

PAUSE_SECONDS = {"queued": 5, "preparing": 2, "running": 2, "paused": 30}  # before it is worth asking again
ENDED_PAUSE_SECONDS = 3600


class Look(NamedTuple):
    """What the book said at one moment."""

    etag: str
    terminal: bool
    answer: schemas.JobAnswer | schemas.DatasetCheckAnswer


@dataclass(frozen=True)
class Wait:
    """How long to hold the answer, and for what."""

    seconds: float
    until: Literal["change", "terminal"]
    if_none_match: str | None


def look_at(job: Job, answer: schemas.JobAnswer | schemas.DatasetCheckAnswer) -> Look:
    return Look(f'W/"v{job.version}"', job.status in TERMINAL, answer)


async def answer_when_due(look: Callable[[], Look], notifications: Notifications, job_id: str, wait: Wait) -> Response:
    """The newest look once the wait is over; 304 when the client has it already."""
    deadline = asyncio.get_running_loop().time() + wait.seconds
    async with notifications.listening(job_id) as bell:
        seen = await run_in_threadpool(look)
        known = wait.if_none_match or seen.etag
        while not seen.terminal and not (wait.until == "change" and _is_new(seen, known)) and not AppStatus.should_exit:
            remaining = deadline - asyncio.get_running_loop().time()
            if remaining <= 0:
                break
            await ring(bell, min(remaining, 1.0))
            bell.clear()
            seen = await run_in_threadpool(look)
    response = respond(seen, 200)
    if not _is_new(seen, wait.if_none_match):
        return Response(status_code=304, headers={name: response.headers[name] for name in ("etag", "retry-after")})
    return response


def _is_new(seen: Look, known: str | None) -> bool:
    return not is_known(seen.etag.removeprefix("W/"), known)


def respond(seen: Look, status: int) -> Response:
    """The answer with its ETag; `Retry-After` says when it is worth asking again."""
    pause_seconds = PAUSE_SECONDS.get(seen.answer.status, ENDED_PAUSE_SECONDS)
    headers = {"ETag": seen.etag, "Retry-After": str(pause_seconds)}
    return Response(seen.answer.model_dump_json(), status, headers, "application/json")
