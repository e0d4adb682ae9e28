"""Warns, once a job, when most of its time or money is used up. The worker itself ends the training in time."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from api.book import costs, queries
from api.book.costs import WARN_FROM, Lent, money
from api.book.events import record_event
from api.book.locks import lock_job, now
from api.book.models import Attempt, Job


def warn(session: Session) -> None:
    """An event for every job whose running attempt has brought it near the limit that it meets first."""
    running = select(Attempt).join(Job, Job.id == Attempt.job_id)
    running = running.where(Attempt.finished_at.is_(None), Attempt.started_at.is_not(None))
    for attempt in session.scalars(running.where(Job.budget_warned_at.is_(None))).all():
        job = lock_job(session, attempt.job_id)
        attempts, moment = queries.attempts_of(session, job.id), now(session)
        limit = costs.first_limit(job, attempts, Lent.to(attempt), moment)
        if limit.used < WARN_FROM or job.budget_warned_at is not None:
            continue
        job.budget_warned_at = moment
        message = f"{limit.used:.0%} of {limit.field} is used; the training ends there with a checkpoint"
        so_far = costs.spent(attempts, moment)
        data = {
            "limit": limit.field,
            "used_fraction": round(limit.used, 4),
            "left_seconds": round(limit.left_seconds, 1),
            "cost": money(so_far.cost),
            "device_hours": round(so_far.device_seconds / costs.HOUR_SECONDS, 6),
        }
        record_event(session, job, "budget.warning", message, data, level="warning")
