"""Numbered events of a job and the bells that wake whoever waits; both take effect when the caller commits."""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, text
from sqlalchemy.orm import Session

from api.book.models import Event, Job

QUEUE_CHANNEL = "trainyard_queue"
JOBS_CHANNEL = "trainyard_jobs"


def record_event(
    session: Session,
    job: Job,
    kind: str,
    message: str,
    data: dict[str, Any] | None = None,
    *,
    level: str = "info",
    trial: int | None = 0,
) -> None:
    """Append the job's next event; the job's row must be locked, which is what keeps the numbers without gaps."""
    job.last_event_seq += 1
    session.add(
        Event(
            job_id=job.id,
            seq=job.last_event_seq,
            type=kind,
            trial=trial,
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
    session.execute(text("SELECT pg_notify(:channel, :payload)"), {"channel": channel, "payload": payload})
