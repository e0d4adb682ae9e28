"""Server-sent events of one job: its events as they stand in the list, metric batches, progress, and a final `done`.

`id:` is `<event seq>.<step>`. A client that reconnects with `Last-Event-ID` gets every event behind the first number
exactly once, and metric points behind the second; points of that very step may repeat, so key them by (name, step).
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from fastapi.concurrency import run_in_threadpool
from sqlalchemy.orm import Session
from sse_starlette import ServerSentEvent

from api import render, schemas
from api.book import costs, queries, series
from api.book.costs import Spent
from api.book.database import Sessions
from api.book.models import Job
from api.book.status import TERMINAL
from api.notifications import POLL_SECONDS, Notifications, ring

BATCH_EVENTS = 200
_CURSOR = re.compile(r"(\d{1,18})(?:\.(\d{1,18}))?")


@dataclass
class Cursor:
    """How far the client has read: the last event, and per series the last step."""

    seq: int = 0
    step: int = -1
    version: int = 0
    progress: schemas.Progress | None = None
    steps: dict[str, int] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str | None) -> Cursor:
        """From `Last-Event-ID`; anything unreadable starts from the beginning, where nothing is missed."""
        found = _CURSOR.fullmatch(text or "")
        if found is None:
            return cls()
        return cls(seq=int(found[1]), step=int(found[2]) - 1 if found[2] else -1)

    def __str__(self) -> str:
        return f"{self.seq}.{max(self.steps.values(), default=max(self.step, 0))}"


@dataclass
class News:
    messages: list[ServerSentEvent]
    end: schemas.StreamEnd | None = None


async def follow(
    sessions: Sessions, notifications: Notifications, job_id: str, cursor: Cursor, trial: int | None = None
) -> AsyncIterator[ServerSentEvent]:
    """Everything behind `cursor`, then everything new, until the job has ended and all was said.

    Of a search everything but the points of its trials' curves; with `trial` all about that one, points too.
    """
    async with notifications.listening(job_id) as bell:
        while True:
            bell.clear()
            news = await run_in_threadpool(_look, sessions, job_id, cursor, trial)
            for message in news.messages:
                yield message
            if news.end is not None:
                yield _message("done", news.end, cursor)
                return
            if not news.messages:
                await ring(bell, POLL_SECONDS)


def _look(sessions: Sessions, job_id: str, cursor: Cursor, trial: int | None) -> News:
    """One short transaction; no connection is held while the client reads."""
    messages: list[ServerSentEvent] = []
    with sessions() as session:
        job = session.get_one(Job, job_id)
        if job.version == cursor.version and job.status not in TERMINAL:
            return News([])
        events = queries.events_after(session, job_id, cursor.seq, BATCH_EVENTS, trial=trial)
        drawn = trial if queries.is_search(job) else 0
        for row in events:
            cursor.seq = row.seq
            if row.type in ("job.started", "trial.started") and row.trial == drawn:
                _walk_back(cursor, int(row.data.get("resumed_from_step", 0)))
            messages.append(_message(row.type, render.event(row), cursor))
        fresh = _new_points(session, job_id, drawn, cursor) if drawn is not None else []
        if fresh:
            answer = schemas.MetricsAnswer(job_id=job_id, series=fresh, cursor=max(cursor.steps.values()))
            messages.append(_message("metrics", answer, cursor))
        progress = render.job_progress(job, _spent(session, job))
        if progress is not None and progress != cursor.progress:
            messages.append(_message("progress", progress, cursor))
            cursor.progress = progress
        if len(events) == BATCH_EVENTS:
            return News(messages)
        cursor.version, cursor.seq = job.version, max(cursor.seq, job.last_event_seq)
        over = job.status in TERMINAL
        return News(messages, schemas.StreamEnd(job_id=job_id, status=job.status, reason=job.reason) if over else None)


def _walk_back(cursor: Cursor, step: int) -> None:
    """A resumed training repeats the steps behind its checkpoint."""
    cursor.step = min(cursor.step, step)
    cursor.steps = {name: min(known, step) for name, known in cursor.steps.items()}


def _new_points(session: Session, job_id: str, trial: int, cursor: Cursor) -> list[schemas.SeriesAnswer]:
    fresh = []
    for name, last_step in series.heads(session, job_id, trial).items():
        known = cursor.steps.get(name, cursor.step)
        if last_step > known:
            found = series.read(session, job_id, names=[name], trials=[trial], after=known)
            fresh += [render.series(one) for one in found]
            cursor.steps[name] = last_step
    return fresh


def _spent(session: Session, job: Job) -> Spent:
    """What the time that a search has left is told by; a training tells its own."""
    return costs.total(session, job.id, job.updated_at) if queries.is_search(job) else Spent()


def _message(kind: str, answer: schemas.Answer, cursor: Cursor) -> ServerSentEvent:
    return ServerSentEvent(event=kind, data=answer.model_dump_json(), id=str(cursor))
