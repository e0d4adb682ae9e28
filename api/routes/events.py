"""`/v1/jobs/{id}/events` and `/stream`: the same numbered events, as a list and as they happen."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Query, Response
from fastapi.concurrency import run_in_threadpool
from sqlalchemy.orm import Session
from sse_starlette import EventSourceResponse

from api import render, schemas
from api.auth import Principal
from api.book import queries
from api.book.database import Sessions
from api.book.status import TERMINAL
from api.deps import JobsReader, KeyringOf, NotificationsOf, SessionsOf, StreamReader
from api.errors import not_found
from api.event_types import EVENT_TYPES
from api.routes.parameters import some_of
from api.stream import Cursor, follow

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["events"])


AfterSeq = Annotated[int, Query(ge=0, lt=2**63, description="the last `seq` you have")]
Types = Annotated[str | None, Query(max_length=1000, description="event types with commas")]
OfTrial = Annotated[int | None, Query(ge=0, lt=2**31, description="of a search, only what is about this trial")]
EventLimit = Annotated[int, Query(ge=1, description="at most 1000")]


@router.get("/events", response_model=schemas.Page[schemas.EventAnswer])
def list_events(
    job_id: str, sessions: SessionsOf, caller: JobsReader,
    after: AfterSeq = 0, types: Types = None, limit: EventLimit = 100, trial: OfTrial = None,
) -> schemas.Page[schemas.EventAnswer]:  # fmt: skip
    """Events of the job in their order, oldest first."""
    with sessions() as session:
        if queries.job_of(session, caller.project_id, job_id) is None:
            raise not_found("job")
        return page_of_events(session, job_id, after, types, limit, trial)


def page_of_events(
    session: Session, job_id: str, after: int, types: str | None, limit: int, trial: int | None = None
) -> schemas.Page[schemas.EventAnswer]:
    limit = min(limit, 1000)
    wanted = some_of("types", [types] if types else None, list(EVENT_TYPES))
    rows = queries.events_after(session, job_id, after, limit + 1, wanted, trial=trial)
    data = [render.event(row) for row in rows[:limit]]
    more = len(rows) > limit
    return schemas.Page(data=data, has_more=more, next_cursor=str(data[-1].seq) if more else None)


@router.get("/stream", response_class=EventSourceResponse)
async def stream(
    job_id: str, sessions: SessionsOf, caller: StreamReader, notifications: NotificationsOf, keyring: KeyringOf,
    last_event_id: Annotated[str | None, Header(max_length=64)] = None, trial: OfTrial = None,
) -> Response:  # fmt: skip
    """Server-sent events: the job's events, `metrics` batches, `progress`, and `done` after the end.

    Of a search the points of its trials' curves come with `trial` alone, then beside nothing but that trial's events.
    A client that comes back behind the end of an ended job gets 204, which tells an EventSource to stop.
    When the key ends, `closed` is the last event.
    """
    cursor = Cursor.parse(last_event_id)
    over = await run_in_threadpool(_nothing_left, sessions, caller, job_id, cursor if last_event_id else None)
    if over:
        return Response(status_code=204)
    told = keyring.stream(caller, follow(sessions, notifications, job_id, cursor, trial))
    return EventSourceResponse(told, ping=15, headers={"Cache-Control": "no-store"})


def _nothing_left(sessions: Sessions, caller: Principal, job_id: str, cursor: Cursor | None) -> bool:
    with sessions() as session:
        job = queries.job_of(session, caller.project_id, job_id)
        if job is None:
            raise not_found("job")
        return cursor is not None and job.status in TERMINAL and cursor.seq >= job.last_event_seq
