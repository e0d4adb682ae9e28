"""What a client may wish of a job. A wish is a column until it is fulfilled; asking twice changes nothing.

Every function takes the caller's session, locks the job's row first, and never commits. `InvalidTransition` is raised
where the job's status does not allow the wish.
"""

from __future__ import annotations

from sqlalchemy.orm import Session

from api.book import search_requests, transitions
from api.book.events import QUEUE_CHANNEL, acting_key, ring, touch
from api.book.lifecycle import InvalidTransition
from api.book.locks import lock_job, lock_trial, now
from api.book.models import Job
from api.book.queries import is_search
from api.book.status import TERMINAL, Status
from training_core.contract.errors import Reason

_CANCELLING = {
    Status.RUNNING: "Cancelling: the training writes a checkpoint first",
    Status.PREPARING: "Cancelling: the preparation of the data is being stopped",
}
_PAUSING = {
    Status.RUNNING: "Pausing: the training writes a checkpoint first",
    Status.PREPARING: "Pausing: the preparation of the data is being stopped",
}


def cancel(session: Session, job_id: str) -> Job:
    """End the job: at once where no attempt has it, else after the checkpoint of the running one."""
    job = lock_job(session, job_id)
    if job.status in TERMINAL:
        if job.status == Status.CANCELLED:
            return job
        raise InvalidTransition(job, "cancel")
    if job.cancel_requested_at is not None:
        return job
    job.wished_by = acting_key(session)
    if is_search(job):
        search_requests.cancel(session, job)
        return _noted(session, job)
    if job.status in (Status.QUEUED, Status.PAUSED):
        trial = lock_trial(session, job.id, 0)
        where = job.status
        transitions.end(session, job, trial, Reason.CANCELLED_BY_CLIENT, f"Cancelled while {where}")
    else:
        job.status_detail = _CANCELLING[Status(job.status)]
    job.cancel_requested_at = now(session)
    return _noted(session, job)


def pause(session: Session, job_id: str) -> Job:
    """Give the devices back until `resume`: at once where no attempt has the job, else after a checkpoint."""
    job = lock_job(session, job_id)
    if job.status in TERMINAL or job.cancel_requested_at is not None or job.work == "check":
        raise InvalidTransition(job, "pause")
    if job.status == Status.PAUSED or job.pause_requested_at is not None:
        return job
    job.wished_by = acting_key(session)
    if is_search(job):
        search_requests.pause(session, job)
    elif job.status == Status.QUEUED:
        transitions.pause(session, job, lock_trial(session, job.id, 0), "Paused while queued")
    else:
        job.pause_requested_at = now(session)
        job.status_detail = _PAUSING[Status(job.status)]
    return _noted(session, job)


def resume(session: Session, job_id: str) -> Job:
    """Queue a paused job again, or take back a pause that has not come about; what is not paused stays as it is."""
    job = lock_job(session, job_id)
    if job.status in TERMINAL or job.cancel_requested_at is not None or job.work == "check":
        raise InvalidTransition(job, "resume")
    if job.status == Status.PAUSED and is_search(job):
        search_requests.resume(session, job)
    elif job.status == Status.PAUSED:
        trial = lock_trial(session, job.id, 0)
        transitions.queue_again(session, job, trial, Reason.RESUMED_BY_CLIENT, "Resumed")
    elif job.pause_requested_at is not None:
        job.pause_requested_at, job.status_detail = None, None
    else:
        return job
    return _noted(session, job)


def profile(session: Session, job_id: str) -> Job:
    """Trace a few steps of a running training with torch.profiler; the trace becomes an artifact."""
    job = lock_job(session, job_id)
    if job.status != Status.RUNNING or job.cancel_requested_at is not None or job.pause_requested_at is not None:
        raise InvalidTransition(job, "profile")
    if job.profile_requested_at is not None:
        return job
    job.profile_requested_at = now(session)
    return _noted(session, job)


def _noted(session: Session, job: Job) -> Job:
    touch(session, job)
    ring(session, QUEUE_CHANNEL, job.id)
    return job
