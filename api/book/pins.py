"""Pins: the client's word that a checkpoint is to be kept. The file in its folder is what keeps retention away."""

from __future__ import annotations

from sqlalchemy.orm import Session

from api.book import audit, queries
from api.book.audit import Actor
from api.book.events import record_event
from api.book.locks import lock_job, now
from api.book.models import Checkpoint


def pin(session: Session, actor: Actor, job_id: str, checkpoint_id: str) -> Checkpoint | None:
    """Note that the checkpoint's folder holds its pin; None when retention was first."""
    job = lock_job(session, job_id)
    row = queries.checkpoint_of(session, job_id, checkpoint_id)
    if row is not None and row.pinned_at is None:
        row.pinned_at = now(session)
        audit.record(session, actor, "checkpoints.pin", row.id, {"job_id": job_id})
        record_event(session, job, "checkpoint.pinned", f"Checkpoint of step {row.step} pinned", {"id": row.id})
    return row


def unpin(session: Session, actor: Actor, job_id: str, checkpoint_id: str) -> Checkpoint | None:
    """Note that the pin is gone; the next checkpoint of a running job may replace this one."""
    job = lock_job(session, job_id)
    row = queries.checkpoint_of(session, job_id, checkpoint_id)
    if row is not None and row.pinned_at is not None:
        row.pinned_at = None
        audit.record(session, actor, "checkpoints.unpin", row.id, {"job_id": job_id})
        record_event(session, job, "checkpoint.unpinned", f"Checkpoint of step {row.step} unpinned", {"id": row.id})
    return row
