"""The doors of a search: how its trials come about, go on and end, and how it ends itself.

The tuner decides (`api/search`) and writes by these functions alone; what the attempts of a trial report comes through
`trial_transitions.py`. Every function takes the caller's session with the job's row locked, and never commits.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from api.book import costs
from api.book.events import QUEUE_CHANNEL, STUDY_CHANNEL, record_event, ring, touch
from api.book.locks import lock_trial, now
from api.book.models import Attempt, Job, JsonObject, Trial
from api.book.queries import is_search, stopping
from api.book.status import REASONS, TERMINAL, Status
from training_core.contract.errors import Reason
from training_core.contract.spec import Scalar

__all__ = ["Moved", "add_trial", "end", "end_trial", "is_search", "note", "promote", "prune", "stop", "stopping"]


class Moved(Exception):
    """The trial is not where the decision saw it: decide again."""

    def __init__(self, trial: Trial) -> None:
        super().__init__(f"trial {trial.number} of {trial.job_id} is {trial.status} ({trial.reason}), not at a rung")


def add_trial(
    session: Session,
    job: Job,
    parameters: Mapping[str, Scalar],
    origin: str,
    *,
    rung: int | None,
    until: float | None,
    sampler: Mapping[str, object] | None = None,
) -> Trial:
    """The next trial, in the queue; its first attempt goes to `rung`, or without one to the end of its training."""
    highest = session.execute(select(func.max(Trial.number)).where(Trial.job_id == job.id)).scalar_one()
    trial = Trial(
        job_id=job.id,
        number=0 if highest is None else highest + 1,
        status=Status.QUEUED,
        reason=Reason.SUBMITTED,
        attempt=0,
        losses=0,
        parameters=dict(parameters),
        origin=origin,
        rung=rung,
        until=until,
        **({} if sampler is None else {"sampler": dict(sampler)}),
    )
    session.add(trial)
    session.flush()
    _queued(session, job)
    return trial


def promote(
    session: Session,
    job: Job,
    number: int,
    *,
    rung: int | None,
    until: float | None,
    why: str,
    adopts: str | None = None,
    parameters: Mapping[str, Scalar] | None = None,
) -> None:
    """On from a rung: from the trial's own checkpoint, or from the one at `adopts` with new `parameters`.

    Raises `Moved` unless the trial waits at a rung.
    """
    trial = _waiting(session, job, number)
    trial.status, trial.reason, trial.why = Status.QUEUED, Reason.PROMOTED, why
    trial.rung, trial.until, trial.adopts = rung, until, adopts
    data: JsonObject = {"rung": rung, "until": until}
    if parameters is not None:
        trial.parameters = dict(parameters)
        data |= {"adopts": adopts, "parameters": trial.parameters}
    record_event(session, job, "trial.promoted", f"Trial {number} goes on: {why}", data, trial=number)
    _queued(session, job)


def prune(session: Session, job: Job, number: int, why: str) -> None:
    """End a trial that waits at a rung; raises `Moved` unless it does."""
    end_trial(session, job, _waiting(session, job, number), Reason.PRUNED, why)


def end_trial(
    session: Session, job: Job, trial: Trial, reason: Reason, why: str, *, error: JsonObject | None = None
) -> None:
    """The trial's last status; the event is `trial.completed`, `.pruned`, `.failed` or `.cancelled`."""
    verdict = REASONS[reason].status
    if verdict == Status.FAILED:
        known = {key: value for key, value in (error or {}).items() if value is not None}
        trial.error = {**known, "code": reason, "message": why}
    trial.status, trial.reason, trial.why, trial.finished_at = verdict, reason, why, now(session)
    kind = "completed" if verdict == Status.SUCCEEDED else verdict
    data = {"reason": reason, "values": trial.values, "reached": trial.reached}
    level = "warning" if verdict == Status.FAILED else "info"
    record_event(session, job, f"trial.{kind}", f"Trial {trial.number}: {why}", data, level=level, trial=trial.number)
    ring(session, STUDY_CHANNEL, job.id)


def note(session: Session, job: Job, study: JsonObject, result: JsonObject | None) -> None:
    """How far the search is, and the best trial's result; `stopping` stays what it is. A visible change only if new."""
    study = {**study, "stopping": stopping(job) or study.get("stopping")}
    if job.study == study and result in (None, job.result):
        return
    job.study = study
    if result is not None:
        job.result = result
    touch(session, job)


def stop(session: Session, job: Job, reason: Reason) -> None:
    """Begin to end: nothing is booked any more, and held attempts write a checkpoint and come back. Then `end` it."""
    if stopping(job) is not None or job.status in TERMINAL:
        return
    job.study = {**(job.study or {}), "stopping": reason}
    job.status_detail = f"Ending ({reason}): trials that are training write a checkpoint first"
    touch(session, job)
    ring(session, QUEUE_CHANNEL, job.id)
    ring(session, STUDY_CHANNEL, job.id)


def end(session: Session, job: Job, reason: Reason, message: str, error: JsonObject | None = None) -> None:
    """The search's last status. Trials that are not at their end are pruned with it, cancelled where it is.

    An attempt that still has one is given up where it stands: its worker hears of it by the janitor.
    """
    verdict, moment = REASONS[reason].status, now(session)
    _end_rest(session, job, reason, message)
    if verdict == Status.FAILED:
        known = {key: value for key, value in (error or {}).items() if value is not None}
        job.error = {**known, "code": reason, "message": message}
    job.status, job.reason, job.finished_at, job.status_detail = verdict, reason, moment, None
    job.pause_requested_at = job.profile_requested_at = None
    if reason == Reason.BUDGET_EXHAUSTED:
        record_event(session, job, "budget.exhausted", message, level="warning")
    level = "error" if verdict == Status.FAILED else "info"
    record_event(session, job, f"job.{verdict}", message, {"reason": reason}, level=level)
    ring(session, QUEUE_CHANNEL, job.id)


def _end_rest(session: Session, job: Job, reason: Reason, message: str) -> None:
    cancelled = REASONS[reason].status == Status.CANCELLED
    why = "cancelled with its search" if cancelled else f"the search ended first ({message})"
    last, moment = (Reason.CANCELLED_BY_CLIENT if cancelled else Reason.PRUNED), now(session)
    rest = select(Trial).where(Trial.job_id == job.id, Trial.status.not_in(TERMINAL)).order_by(Trial.number)
    for trial in session.scalars(rest.with_for_update().execution_options(populate_existing=True)).all():
        end_trial(session, job, trial, last, why)
    held = select(Attempt).where(Attempt.job_id == job.id, Attempt.finished_at.is_(None))
    for attempt in session.scalars(held.with_for_update()):
        attempt.held_seconds = costs.held_seconds(attempt, moment, moment)
        attempt.reason, attempt.finished_at = last, moment


def _waiting(session: Session, job: Job, number: int) -> Trial:
    trial = lock_trial(session, job.id, number)
    if (trial.status, trial.reason) != (Status.PAUSED, Reason.RUNG_REACHED):
        raise Moved(trial)
    return trial


def _queued(session: Session, job: Job) -> None:
    touch(session, job)
    ring(session, QUEUE_CHANNEL, job.id)
