"""The locks that every writer of the book takes first: a job's row, then its trial's, then its attempt's.

Writes that come from an attempt are guarded by its number: once a newer attempt exists, or the trial has ended,
`StaleAttempt` is raised and nothing is written.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from api.book import transaction_cache
from api.book.models import Attempt, Job, Trial
from api.book.status import HELD


class StaleAttempt(Exception):
    """The attempt is not the trial's current one any more; what it says changes nothing."""

    def __init__(self, attempt: Attempt) -> None:
        super().__init__(f"attempt {attempt.number} of {attempt.job_id} is no longer current")


def current(session: Session, attempt: Attempt) -> tuple[Job, Trial]:
    """The attempt's job and trial, locked; raises `StaleAttempt` unless the attempt is the one that counts."""
    known = transaction_cache.facts(session)
    if attempt not in known:
        locked = lock_job(session, attempt.job_id), lock_trial(session, attempt.job_id, attempt.trial)
        session.refresh(attempt, with_for_update=True)
        known[attempt] = locked
    job, trial = known[attempt]
    if trial.attempt != attempt.number or trial.status not in HELD or attempt.finished_at is not None:
        raise StaleAttempt(attempt)
    return job, trial


def lock_job(session: Session, job_id: str) -> Job:
    """The job's row, locked: the first lock of every writer, so that writers queue and never deadlock."""
    return session.scalars(
        select(Job).where(Job.id == job_id).with_for_update().execution_options(populate_existing=True)
    ).one()


def lock_trial(session: Session, job_id: str, number: int) -> Trial:
    """Behind the job's own lock."""
    query = select(Trial).where(Trial.job_id == job_id, Trial.number == number).with_for_update()
    return session.scalars(query.execution_options(populate_existing=True)).one()


def now(session: Session) -> datetime:
    """The database's time of this transaction."""
    known = transaction_cache.facts(session)
    if "now" not in known:
        known["now"] = session.execute(select(func.now())).scalar_one()
    moment: datetime = known["now"]
    return moment
