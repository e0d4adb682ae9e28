"""The way of a job up to its running; `transitions.py` has the ways on. Together they are the only writers of statuses.

Every function takes the caller's session, locks the job's row first (`locks.py`), and never commits. Each change is an
event, numbered in the same transaction.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import update
from sqlalchemy.orm import Session

from api.book import queries
from api.book import status as states
from api.book.costs import Lent
from api.book.events import QUEUE_CHANNEL, STUDY_CHANNEL, record_event, ring, touch
from api.book.ids import new_id
from api.book.locks import current, now
from api.book.models import Attempt, Job, JsonObject, Trial, Worker
from api.book.status import REASONS, Status
from training_core.contract.errors import Reason
from training_core.contract.spec import SPEC_VERSION, JobSpec, Work
from training_core.contract.uploads import upload_of


class InvalidTransition(Exception):
    """The job's status does not allow the action; `allowed` names what it does."""

    def __init__(self, job: Job, action: str) -> None:
        self.allowed = actions_of(job)
        what = "job" if job.work == "train" else "dataset check"
        where = "being cancelled" if job.cancel_requested_at is not None else job.status
        super().__init__(f"a {what} that is {where} cannot be asked to {action}")


def actions_of(job: Job) -> list[str]:
    """What its client may ask of it now."""
    wishes = {"cancelling": job.cancel_requested_at is not None, "pausing": job.pause_requested_at is not None}
    return states.actions(Status(job.status), job.work, **wishes)


def submit(session: Session, project_id: str, spec: JobSpec, work: Work = "train") -> Job:
    """Book a job with its trial and first event; the dispatcher hears of it when the caller commits.

    The trials of a search come from the tuner, which hears of it in the dispatcher's place.
    """
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
        dataset_key=queries.dataset_key(spec),
        dataset_id=upload_of(spec.dataset.uri),
        status=Status.QUEUED,
        reason=Reason.SUBMITTED,
        version=1,
        last_event_seq=0,
    )
    session.add(job)
    session.flush()
    if not queries.is_search(job):
        session.add(Trial(job_id=job.id, number=0, status=Status.QUEUED, reason=Reason.SUBMITTED, attempt=0, losses=0))
    record_event(session, job, "job.created", "Job accepted" if work == "train" else "Dataset check accepted")
    ring(session, STUDY_CHANNEL if queries.is_search(job) else QUEUE_CHANNEL, job.id)
    session.flush()
    session.refresh(job)
    return job


def book_attempt(session: Session, job: Job, trial: Trial, worker: Worker, lent: Lent) -> Attempt:
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
        device=lent.device,
        devices=lent.devices,
        share=lent.share,
        profile=lent.profile,
        price_per_hour=lent.price_per_hour,
        currency=lent.currency,
        resume_from=queries.goes_on_from(session, job.id, trial),
        last_seq=0,
        made_progress=False,
    )
    session.add(attempt)
    job.dispatched_at = job.dispatched_at or now(session)
    if not queries.is_search(job) or job.status == Status.QUEUED:
        _move(session, job, Reason.DISPATCHED)
        job.status_detail = f"Waiting for worker {worker.name} to take attempt {attempt.number}"
    session.flush()
    return attempt


def claim(session: Session, attempt: Attempt) -> None:
    """The host took the attempt and now prepares the data; of a search, only its first preparation is news."""
    job, _ = current(session, attempt)
    if attempt.claimed_at is not None:
        return
    attempt.claimed_at = now(session)
    if queries.is_search(job) and job.data_ready_at is not None:
        return
    job.status_detail = None
    detail = {"attempt": attempt.number, "worker": attempt.worker, "resume_from": attempt.resume_from}
    message = f"Attempt {attempt.number} prepares on {attempt.worker}"
    record_event(session, job, "job.preparing", message, detail, trial=attempt.trial)


def data_ready(session: Session, attempt: Attempt, at: datetime) -> None:
    """The data of the attempt is prepared: from now on it holds its devices, or waits for them on its host."""
    job, _ = current(session, attempt)
    attempt.data_ready_at = attempt.data_ready_at or at
    if job.data_ready_at is None and queries.is_search(job):
        ring(session, STUDY_CHANNEL, job.id)  # the first trial has prepared for all
    job.data_ready_at = job.data_ready_at or at
    if attempt.devices and not _ends_soon(job) and job.status != Status.RUNNING:  # as of a search, by another trial
        job.status_detail = f"The data is ready; the training begins when worker {attempt.worker} has a free slot"


def use_devices(attempt: Attempt, at: datetime) -> None:
    """The training of the attempt has begun to report: from now on its devices cost."""
    if attempt.devices and attempt.started_at is None:
        attempt.started_at = at


def start(session: Session, attempt: Attempt, resumed_from_step: int, at: datetime) -> None:
    """preparing -> running: the ranks are up since `at`, by the clock of their host like all phases of an attempt."""
    job, trial = current(session, attempt)
    use_devices(attempt, at)
    first = job.status != Status.RUNNING
    trial.status, trial.reason = Status.RUNNING, Reason.TRAINING
    trial.started_at = trial.started_at or at
    job.processes_up_at = job.processes_up_at or at
    if first or not queries.is_search(job):
        job.status_detail = job.status_detail if _ends_soon(job) else None
        _move(session, job, Reason.TRAINING)
    message = f"Training resumed from step {resumed_from_step}" if resumed_from_step else "Training started"
    detail: JsonObject = {"attempt": attempt.number, "resumed_from_step": resumed_from_step}
    if not queries.is_search(job):
        record_event(session, job, "job.started", message, detail)
        return
    if first:
        record_event(session, job, "job.started", "The search trains", {"trial": trial.number})
    detail |= {"parameters": trial.parameters, "origin": trial.origin, "rung": trial.rung, "until": trial.until}
    record_event(session, job, "trial.started", f"Trial {trial.number}: {message}", detail, trial=trial.number)


def _ends_soon(job: Job) -> bool:
    """A wish is under way, and the status detail already says what it waits for."""
    return job.cancel_requested_at is not None or job.pause_requested_at is not None


def _move(session: Session, job: Job, reason: Reason) -> None:
    job.status, job.reason = REASONS[reason].status, reason
    touch(session, job)
