"""Numbered events of a job and the notifications that wake whoever waits; both take effect when the caller commits."""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, text
from sqlalchemy.orm import Session

from api.book import transaction_cache
from api.book.models import Event, Job
from api.book.queries import is_search
from training_core.contract.errors import Reason

QUEUE_CHANNEL = "trainyard_queue"
STUDY_CHANNEL = "trainyard_study"  # the tuner's bell; its payload is the id of a search
JOBS_CHANNEL = "trainyard_jobs"
KEYS_CHANNEL = "trainyard_keys"  # its payload is the id of a key that ends, at once or earlier than it would have
_ACTING_KEY = "acting_key"
_BY_WISH = {"job.cancelled": Reason.CANCELLED_BY_CLIENT, "job.paused": Reason.PAUSED_BY_CLIENT}


def act_for(session: Session, key_id: str | None) -> None:
    """Events that this session records from here on were caused by a request with this key."""
    session.info[_ACTING_KEY] = key_id


def acting_key(session: Session) -> str | None:
    """The key whose request this session serves; None in the control loops."""
    key_id: str | None = session.info.get(_ACTING_KEY)
    return key_id


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
    It carries the key whose request caused it, be it that the wish of that request is fulfilled only now.
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
            key_id=acting_key(session) or _whose_wish(job, kind),
        )
    )
    touch(session, job)


def _whose_wish(job: Job, kind: str) -> str | None:
    return job.wished_by if _BY_WISH.get(kind) == job.reason else None


def touch(session: Session, job: Job) -> None:
    """Count a visible change and wake whoever watches this job, once the caller commits."""
    job.version += 1
    job.updated_at = func.now()  # evaluated by the database at the flush
    ring(session, JOBS_CHANNEL, job.id)


def ring(session: Session, channel: str, payload: str) -> None:
    """Once a transaction: PostgreSQL delivers the same words once however often they were said in it."""
    known = transaction_cache.facts(session)
    if (channel, payload) in known:
        return
    known[channel, payload] = True
    session.execute(text("SELECT pg_notify(:channel, :payload)"), {"channel": channel, "payload": payload})
