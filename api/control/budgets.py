"""Warns, once a job, when most of its time or money is used up, and ends a search whose trials have used it all.

A plain training is ended in time by its worker, and so is each trial by its part of what was left when it began; but
trials that run side by side may use more together than was left.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from api.book import costs, queries, studies
from api.book.costs import WARN_FROM, Lent, Limit, money
from api.book.events import record_event
from api.book.locks import lock_job, now
from api.book.models import Attempt, Job
from api.book.status import TERMINAL


def watch(session: Session) -> None:
    """Look at every job of which an attempt uses devices."""
    running = select(Attempt).join(Job, Job.id == Attempt.job_id)
    running = running.where(Attempt.finished_at.is_(None), Attempt.started_at.is_not(None))
    running = running.where(Job.budget_warned_at.is_(None) | (Job.spec["search"].astext.is_not(None)))
    by_job = {attempt.job_id: attempt for attempt in session.scalars(running.order_by(Attempt.job_id))}
    for attempt in by_job.values():
        job, moment, lent = lock_job(session, attempt.job_id), now(session), Lent.to(attempt)
        if job.status in TERMINAL:
            continue
        if queries.is_search(job):
            limit = costs.search_limit(session, job, lent, moment)
            if limit is not None and limit.left_seconds <= 0:
                studies.stop(session, job, limit.reason)
        else:
            limit = costs.first_limit(session, job, lent, moment)
        if limit is not None and limit.used >= WARN_FROM and job.budget_warned_at is None:
            _warn(session, job, limit, moment)


def _warn(session: Session, job: Job, limit: Limit, moment: datetime) -> None:
    job.budget_warned_at = moment
    what = "search" if queries.is_search(job) else "training"
    message = f"{limit.used:.0%} of {limit.field} is used; the {what} ends there with a checkpoint"
    so_far = costs.total(session, job.id, moment)
    data = {
        "limit": limit.field,
        "used_fraction": round(limit.used, 4),
        "left_seconds": round(limit.left_seconds, 1),
        "cost": money(so_far.cost),
        "device_hours": round(so_far.device_seconds / costs.HOUR_SECONDS, 6),
    }
    record_event(session, job, "budget.warning", message, data, level="warning")
