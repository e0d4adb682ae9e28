"""How an attempt ends, and what becomes of its job: the last status, a pause, or another place in the queue.

Those of a search's trials are in `trial_transitions.py`.

Like `lifecycle.py`: every function takes the caller's session with the job's row locked, and never commits.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from api.book import costs, queries, trial_transitions
from api.book.costs import Lent
from api.book.events import QUEUE_CHANNEL, record_event, ring
from api.book.locks import current, now
from api.book.models import Attempt, Job, JsonObject, Trial
from api.book.status import REASONS, TERMINAL, Status
from training_core.contract.errors import Reason


@dataclass(frozen=True)
class End:
    """How the worker says that an attempt ended, and when, by its own clock; `error` is what a failed job shows."""

    reason: Reason
    at: datetime
    held_seconds: float | None
    error: JsonObject


def finish(session: Session, attempt: Attempt, told: End, losses_limit: int) -> None:
    """The worker's one outcome of the attempt: ends the job, pauses it, or queues it again, as `REASONS` says."""
    job, trial = current(session, attempt)
    _close(session, attempt, told.reason, told.at, told.held_seconds)
    _settle(session, job, trial, attempt, error=told.error, losses_limit=losses_limit)


def lose(session: Session, attempt: Attempt, message: str, losses_limit: int) -> None:
    """The attempt's worker is gone: the same walk as a finish, with the janitor as the witness."""
    job, trial = current(session, attempt)
    _close(session, attempt, Reason.WORKER_LOST, now(session))
    data = {"attempt": attempt.number, "worker": attempt.worker}
    record_event(session, job, "worker.lost", message, data, level="warning", trial=trial.number)
    _settle(session, job, trial, attempt, error={"message": message}, losses_limit=losses_limit)


def _close(session: Session, attempt: Attempt, reason: Reason, at: datetime, told_seconds: float | None = None) -> None:
    """What the worker measured counts; without its word, from the first report of the training on."""
    moment = now(session)
    if told_seconds is None or not attempt.devices:
        attempt.held_seconds = costs.held_seconds(attempt, at, moment)
    else:
        attempt.held_seconds = min(told_seconds, costs.seconds_since_booking(attempt, moment))
    attempt.reason, attempt.finished_at = reason, moment


def _settle(
    session: Session, job: Job, trial: Trial, attempt: Attempt, *, error: JsonObject, losses_limit: int
) -> None:
    if queries.is_search(job):
        return trial_transitions.settle(session, job, trial, attempt, error=error, losses_limit=losses_limit)
    reason = Reason(attempt.reason or "")
    verdict = REASONS[reason]
    message = error.get("message") or str(reason)
    pause_wanted = job.pause_requested_at is not None
    job.pause_requested_at = job.profile_requested_at = None
    if job.cancel_requested_at is not None and verdict.status != Status.SUCCEEDED:
        return end(session, job, trial, Reason.CANCELLED_BY_CLIENT, "Cancelled")
    if verdict.status in TERMINAL:
        return end(session, job, trial, reason, message, error=_with_way_out(reason, error))
    trial.losses = 0 if attempt.made_progress else trial.losses
    trial.losses += verdict.retry == "counted"
    if trial.losses > losses_limit:
        detail = (
            f"Attempt {attempt.number} ended as {reason}: {message}. {losses_limit} retries brought no new checkpoint"
        )
        return end(session, job, trial, Reason.RETRIES_EXHAUSTED, detail, error=error)
    if pause_wanted:
        return pause(session, job, trial, _paused(session, job, trial))
    if not end_if_used_up(session, job, trial, Lent.to(attempt)):
        _queue_after(session, job, trial, attempt, message)
    return None


def _queue_after(session: Session, job: Job, trial: Trial, attempt: Attempt, message: str) -> None:
    reason = Reason(attempt.reason or "")
    if reason == Reason.PAUSED_BY_CLIENT:  # the wish was taken back when the worker had already heard it
        queue_again(session, job, trial, Reason.RESUMED_BY_CLIENT, "Resumed")
    else:
        queue_again(session, job, trial, reason, f"Queued again: {message}", attempt=attempt.number)


def end_if_used_up(session: Session, job: Job, trial: Trial, lent: Lent) -> bool:
    """End a job whose limits leave nothing for another attempt on `lent`; its last checkpoint is kept."""
    limit = costs.used_up(session, job, lent, now(session))
    if limit is not None:
        message = f"{limit.field} is used up; the last checkpoint is kept"
        end(session, job, trial, limit.reason, message, error={"hint": costs.way_out(limit.field)})
    return limit is not None


def _with_way_out(reason: Reason, error: JsonObject) -> JsonObject:
    field = {Reason.TIME_LIMIT: "compute.max_hours", Reason.BUDGET_EXHAUSTED: "the budget"}.get(reason)
    return error if field is None or error.get("hint") else {**error, "hint": costs.way_out(field)}


def _paused(session: Session, job: Job, trial: Trial) -> str:
    checkpoint = queries.newest_checkpoint(session, job.id, trial.number)
    return f"Paused; it resumes from {checkpoint}" if checkpoint else "Paused before its first checkpoint"


def pause(session: Session, job: Job, trial: Trial, message: str) -> None:
    """Out of the queue and off all devices, until the client resumes it."""
    trial.status = job.status = Status.PAUSED
    trial.reason = job.reason = Reason.PAUSED_BY_CLIENT
    job.status_detail = None
    record_event(session, job, "job.paused", message)


def queue_again(
    session: Session, job: Job, trial: Trial, reason: Reason, message: str, *, attempt: int | None = None
) -> None:
    """Back into the queue, from an attempt that could not go on or from a pause."""
    trial.status = job.status = Status.QUEUED
    trial.reason = job.reason = reason
    job.queued_at = now(session)
    job.status_detail = message if attempt is not None else None
    if attempt is None:
        record_event(session, job, "job.resumed", message, {"reason": reason})
    else:
        record_event(session, job, "job.requeued", message, {"attempt": attempt, "reason": reason}, level="warning")
    ring(session, QUEUE_CHANNEL, job.id)


def end(
    session: Session, job: Job, trial: Trial, reason: Reason, message: str, *, error: JsonObject | None = None
) -> None:
    """The job's last status."""
    verdict, moment = REASONS[reason].status, now(session)
    if verdict == Status.FAILED:
        known = {key: value for key, value in (error or {}).items() if value is not None}
        job.error = {**known, "code": reason, "message": message}
    trial.status, trial.reason, trial.finished_at = verdict, reason, moment
    job.status, job.reason, job.finished_at, job.status_detail = verdict, reason, moment, None
    if reason == Reason.BUDGET_EXHAUSTED:
        record_event(session, job, "budget.exhausted", message, level="warning")
    level = "error" if verdict == Status.FAILED else "info"
    record_event(session, job, f"job.{verdict}", message, {"reason": reason}, level=level)
