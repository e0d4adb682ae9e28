"""The only writer of statuses. Every function takes the caller's session, locks the job's row first, and never commits.

Writes that come from an attempt are guarded by its number: once a newer attempt exists, or the trial has ended,
`StaleAttempt` is raised and nothing is written. Each change is an event, numbered in the same transaction.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from api.book import queries
from api.book import status as states
from api.book.events import QUEUE_CHANNEL, record_event, ring, touch
from api.book.ids import new_id
from api.book.models import Attempt, Job, JsonObject, Trial, Worker
from api.book.status import HELD, REASONS, TERMINAL, Status
from training_core.spec import SPEC_VERSION, JobSpec, Work
from training_core.wire import Reason


class StaleAttempt(Exception):
    """The attempt is not the trial's current one any more; what it says changes nothing."""

    def __init__(self, attempt: Attempt) -> None:
        super().__init__(f"attempt {attempt.number} of {attempt.job_id} is no longer current")


class InvalidTransition(Exception):
    """The job's status does not allow the action; `allowed` names what it does."""

    def __init__(self, job: Job, action: str) -> None:
        self.allowed = states.actions(Status(job.status))
        what = "job" if job.work == "train" else "dataset check"
        super().__init__(f"a {what} that is {job.status} cannot be asked to {action}")


def submit(session: Session, project_id: str, spec: JobSpec, work: Work = "train") -> Job:
    """Book a job with its trial and first event; the dispatcher hears of it when the caller commits."""
    job = Job(
        id=new_id(queries.ID_PREFIX[work]),
        project_id=project_id,
        work=work,
        name=spec.name,
        external_id=spec.external_id,
        spec=spec.model_dump(mode="json"),
        spec_version=SPEC_VERSION,
        priority=spec.priority,
        labels=dict(spec.labels),
        client_metadata=dict(spec.metadata),
        status=Status.QUEUED,
        reason=Reason.SUBMITTED,
        version=1,
        last_event_seq=0,
    )
    session.add(job)
    session.flush()
    session.add(Trial(job_id=job.id, number=0, status=Status.QUEUED, reason=Reason.SUBMITTED, attempt=0, losses=0))
    record_event(session, job, "job.created", "Job accepted" if work == "train" else "Dataset check accepted")
    ring(session, QUEUE_CHANNEL, job.id)
    session.flush()
    session.refresh(job)
    return job


def request_cancel(session: Session, job_id: str) -> Job:
    """Note the wish to cancel; a job that holds no slot ends at once. Asking twice changes nothing.

    Raises `InvalidTransition` when the job has succeeded or failed.
    """
    job = lock_job(session, job_id)
    if job.status in TERMINAL:
        if job.status == Status.CANCELLED:
            return job
        raise InvalidTransition(job, "cancel")
    if job.cancel_requested_at is None:
        job.cancel_requested_at = _now(session)
        job.status_detail = _what_a_cancel_waits_for(job)
        if job.status == Status.QUEUED:
            trial = _trial(session, job.id, 0)
            _end(session, job, trial, Reason.CANCELLED_BY_CLIENT, "Cancelled while queued")
        ring(session, QUEUE_CHANNEL, job.id)
    touch(session, job)
    return job


def _what_a_cancel_waits_for(job: Job) -> str | None:
    match job.status:
        case Status.RUNNING:
            return "Cancelling: the training writes a checkpoint first"
        case Status.PREPARING:
            return "Cancelling: the preparation of the data is being stopped"
        case _:
            return None


def book_attempt(session: Session, job: Job, trial: Trial, worker: Worker, *, device: str, devices: int) -> Attempt:
    """Give a queued trial (row locked by the caller) its next attempt on `worker`, from the newest checkpoint."""
    moved = session.execute(
        update(Trial)
        .where(Trial.job_id == job.id, Trial.number == trial.number)
        .where(Trial.status == Status.QUEUED, Trial.attempt == trial.attempt)
        .values(status=Status.PREPARING, reason=Reason.DISPATCHED, attempt=trial.attempt + 1)
    )
    if moved.rowcount == 0:  # type: ignore[attr-defined]
        raise InvalidTransition(job, "dispatch")
    session.refresh(trial)
    attempt = Attempt(
        id=new_id("att"),
        job_id=job.id,
        trial=trial.number,
        number=trial.attempt,
        worker=worker.name,
        incarnation=worker.incarnation,
        device=device,
        devices=devices,
        resume_from=queries.newest_checkpoint(session, job.id, trial.number),
        last_seq=0,
        made_progress=False,
    )
    session.add(attempt)
    _move(session, job, Reason.DISPATCHED)
    job.dispatched_at = job.dispatched_at or _now(session)
    job.status_detail = f"Waiting for worker {worker.name} to take attempt {attempt.number}"
    session.flush()
    return attempt


def claim(session: Session, attempt: Attempt) -> None:
    """The host took the attempt and now prepares the data."""
    job, _ = _current(session, attempt)
    if attempt.claimed_at is not None:
        return
    attempt.claimed_at = _now(session)
    job.status_detail = None
    detail = {"attempt": attempt.number, "worker": attempt.worker, "resume_from": attempt.resume_from}
    record_event(session, job, "job.preparing", f"Attempt {attempt.number} prepares on {attempt.worker}", detail)


def data_ready(session: Session, attempt: Attempt, at: datetime) -> None:
    """The data of the attempt is prepared: from now on it holds its devices, or waits for them on its host."""
    job, _ = _current(session, attempt)
    attempt.data_ready_at = attempt.data_ready_at or at
    job.data_ready_at = job.data_ready_at or at
    if attempt.devices and job.cancel_requested_at is None:
        job.status_detail = f"The data is ready; the training begins when worker {attempt.worker} has a free slot"


def start(session: Session, attempt: Attempt, resumed_from_step: int, at: datetime) -> None:
    """preparing -> running: the ranks are up since `at`, by the clock of their host like all phases of an attempt."""
    job, trial = _current(session, attempt)
    job.status_detail = job.status_detail if job.cancel_requested_at is not None else None
    trial.status, trial.reason = Status.RUNNING, Reason.TRAINING
    _move(session, job, Reason.TRAINING)
    job.processes_up_at = job.processes_up_at or at
    message = f"Training resumed from step {resumed_from_step}" if resumed_from_step else "Training started"
    detail = {"attempt": attempt.number, "resumed_from_step": resumed_from_step}
    record_event(session, job, "job.started", message, detail)


def finish(session: Session, attempt: Attempt, reason: Reason, error: JsonObject, losses_limit: int) -> None:
    """The worker's one outcome of the attempt: ends the job, or queues it again, as `REASONS` says."""
    job, trial = _current(session, attempt)
    attempt.reason, attempt.finished_at = reason, _now(session)
    _settle(session, job, trial, attempt, error=error, losses_limit=losses_limit)


def lose(session: Session, attempt: Attempt, message: str, losses_limit: int) -> None:
    """The attempt's worker is gone: the same walk as a finish, with the janitor as the witness."""
    job, trial = _current(session, attempt)
    attempt.reason, attempt.finished_at = Reason.WORKER_LOST, _now(session)
    data = {"attempt": attempt.number, "worker": attempt.worker}
    record_event(session, job, "worker.lost", message, data, level="warning")
    _settle(session, job, trial, attempt, error={"message": message}, losses_limit=losses_limit)


def _settle(
    session: Session, job: Job, trial: Trial, attempt: Attempt, *, error: JsonObject, losses_limit: int
) -> None:
    reason = Reason(attempt.reason or "")
    verdict = REASONS[reason]
    message = error.get("message") or str(reason)
    if job.cancel_requested_at is not None and verdict.status != Status.SUCCEEDED:
        return _end(session, job, trial, Reason.CANCELLED_BY_CLIENT, "Cancelled")
    if verdict.retry == "never":
        return _end(session, job, trial, reason, message, error=error)
    trial.losses = 0 if attempt.made_progress else trial.losses
    trial.losses += verdict.retry == "counted"
    if trial.losses > losses_limit:
        detail = (
            f"Attempt {attempt.number} ended as {reason}: {message}. {losses_limit} retries brought no new checkpoint"
        )
        return _end(session, job, trial, Reason.RETRIES_EXHAUSTED, detail, error=error)
    trial.status, trial.reason = Status.QUEUED, reason
    job.status, job.reason, job.queued_at = Status.QUEUED, reason, _now(session)
    job.status_detail = f"Queued again: {message}"
    record_event(
        session, job, "job.requeued", job.status_detail, {"attempt": attempt.number, "reason": reason}, level="warning"
    )
    return ring(session, QUEUE_CHANNEL, job.id)


def _end(
    session: Session, job: Job, trial: Trial, reason: Reason, message: str, *, error: JsonObject | None = None
) -> None:
    verdict = REASONS[reason].status
    now = _now(session)
    if verdict == Status.FAILED:
        known = {key: value for key, value in (error or {}).items() if value is not None}
        job.error = {**known, "code": reason, "message": message}
    trial.status, trial.reason, trial.finished_at = verdict, reason, now
    job.status, job.reason, job.finished_at, job.status_detail = verdict, reason, now, None
    level = "error" if verdict == Status.FAILED else "info"
    record_event(session, job, f"job.{verdict}", message, {"reason": reason}, level=level)


def _move(session: Session, job: Job, reason: Reason) -> None:
    job.status, job.reason = REASONS[reason].status, reason
    touch(session, job)


def _current(session: Session, attempt: Attempt) -> tuple[Job, Trial]:
    """The attempt's job and trial, locked; raises `StaleAttempt` unless the attempt is the one that counts."""
    job = lock_job(session, attempt.job_id)
    trial = _trial(session, attempt.job_id, attempt.trial)
    session.refresh(attempt, with_for_update=True)
    if trial.attempt != attempt.number or trial.status not in HELD or attempt.finished_at is not None:
        raise StaleAttempt(attempt)
    return job, trial


def guard(session: Session, attempt: Attempt) -> Job:
    """The locked job, for reports that change no status; raises `StaleAttempt` like the doors above."""
    return _current(session, attempt)[0]


def lock_job(session: Session, job_id: str) -> Job:
    """The job's row, locked: the first lock of every writer, so that writers queue and never deadlock."""
    return session.scalars(
        select(Job).where(Job.id == job_id).with_for_update().execution_options(populate_existing=True)
    ).one()


def _trial(session: Session, job_id: str, number: int) -> Trial:
    query = select(Trial).where(Trial.job_id == job_id, Trial.number == number).with_for_update()
    return session.scalars(query.execution_options(populate_existing=True)).one()


def _now(session: Session) -> datetime:
    return session.execute(select(func.now())).scalar_one()
