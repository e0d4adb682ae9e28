"""Ends what no worker that is there could do, for as long as the operator lets it wait."""

from __future__ import annotations

from sqlalchemy.orm import Session

from api.book import lanes, studies, transitions
from api.book.locks import lock_trial
from api.book.queries import is_search
from api.book.status import Status
from training_core.contract.errors import Reason

HINT = "GET /v1/profiles says which profiles a worker serves; submit it again with one of them, or start such a worker"


def end(session: Session, job_id: str, seconds: float) -> None:
    """The job, unless somebody else has it now, or a worker has come that serves it."""
    found = lanes.lock_waiting(session, job_id, wait=False)
    if found is None or found[0].status != Status.QUEUED:
        return
    job, lane = found
    decided = lanes.decisions(session).get(lane)
    if decided is None or decided.unserved_since is None:
        return
    message, error = f"{decided.message}, for {seconds:g} s by now", {"hint": HINT}
    if is_search(job):
        studies.end(session, job, Reason.UNSCHEDULABLE, message, error)
    else:
        transitions.end(session, job, lock_trial(session, job.id, 0), Reason.UNSCHEDULABLE, message, error=error)
