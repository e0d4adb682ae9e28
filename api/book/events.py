"""Numbered events of a job and the bells that wake whoever waits; both take effect when the caller commits."""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, text
from sqlalchemy.orm import Session

from api.book import once
from api.book.models import Event, Job
from api.book.queries import is_search

QUEUE_CHANNEL = "trainyard_queue"
STUDY_CHANNEL = "trainyard_study"  # the tuner's bell; its payload is the id of a search
JOBS_CHANNEL = "trainyard_jobs"


def record_event(
    session: Session,
    job: Job,
    kind: str,
    message: str,
    data: dict[str, Any] | None = None,
    *,
    level: str = "info",
    trial: int | None = None,
) -> None:
    """Append the job's next event; the job's row must be locked, which is what keeps the numbers without gaps.

    `trial` says which one of a search it is about, None for the search as a whole; a plain job's are all about its one.
    """
    job.last_event_seq += 1
    session.add(
        Event(
            job_id=job.id,
            seq=job.last_event_seq,
            type=kind,
            trial=trial if is_search(job) else 0,
            level=level,
            message=message[:2000],
            data=data or {},
        )
    )
    touch(session, job)


def touch(session: Session, job: Job) -> None:
    """Count a visible change and wake whoever watches this job, once the caller commits."""
    job.version += 1
    job.updated_at = func.now()  # evaluated by the database at the flush
    ring(session, JOBS_CHANNEL, job.id)


def ring(session: Session, channel: str, payload: str) -> None:
    """Once a transaction: PostgreSQL delivers the same words once however often they were said in it."""
    known = once.facts(session)
    if (channel, payload) in known:
        return
    known[channel, payload] = True
    session.execute(text("SELECT pg_notify(:channel, :payload)"), {"channel": channel, "payload": payload})
