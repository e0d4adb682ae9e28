"""How a search fulfils what its client wishes: all trials that are held come back first, each with a checkpoint."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from api.book import studies
from api.book.events import QUEUE_CHANNEL, STUDY_CHANNEL, record_event, ring
from api.book.locks import now
from api.book.models import Job, Trial
from api.book.queries import held_trials
from api.book.status import HELD, TERMINAL, Status
from training_core.contract.errors import Reason


def cancel(session: Session, job: Job) -> None:
    """Queued and waiting trials end at once; the search itself when none is held any more."""
    if not held_trials(session, job.id):
        studies.end(session, job, Reason.CANCELLED_BY_CLIENT, f"Cancelled while {job.status}")
        job.cancel_requested_at = now(session)
        return
    job.cancel_requested_at = now(session)
    job.status_detail = "Cancelling: trials that are training write a checkpoint first"
    loose = select(Trial).where(Trial.job_id == job.id, Trial.status.not_in(TERMINAL | HELD)).order_by(Trial.number)
    for trial in session.scalars(loose.with_for_update().execution_options(populate_existing=True)).all():
        studies.end_trial(session, job, trial, Reason.CANCELLED_BY_CLIENT, f"cancelled while {trial.status}")


def pause(session: Session, job: Job) -> None:
    """The search is what is paused: its trials stay queued, or at their rungs."""
    if not held_trials(session, job.id):
        _paused(session, job)
        return
    job.pause_requested_at = now(session)
    job.status_detail = "Pausing: trials that are training write a checkpoint first"


def resume(session: Session, job: Job) -> None:
    """Its trials go on as they are queued, and the tuner decides about those that wait."""
    job.status, job.reason, job.status_detail = Status.QUEUED, Reason.RESUMED_BY_CLIENT, None
    job.queued_at = now(session)
    record_event(session, job, "job.resumed", "Resumed", {"reason": Reason.RESUMED_BY_CLIENT})
    ring(session, QUEUE_CHANNEL, job.id)
    ring(session, STUDY_CHANNEL, job.id)


def settle(session: Session, job: Job) -> None:
    """Fulfil a cancel, or a pause, once no trial is held any more."""
    if job.status in TERMINAL or held_trials(session, job.id):
        return
    if job.cancel_requested_at is not None:
        studies.end(session, job, Reason.CANCELLED_BY_CLIENT, "Cancelled")
    elif job.pause_requested_at is not None:
        _paused(session, job)


def _paused(session: Session, job: Job) -> None:
    job.status, job.reason = Status.PAUSED, Reason.PAUSED_BY_CLIENT
    job.pause_requested_at = job.profile_requested_at = job.status_detail = None
    record_event(session, job, "job.paused", "Paused; its trials resume from their checkpoints")
