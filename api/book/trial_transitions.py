"""How an attempt of a search's trial ends, and what becomes of the trial: its end, a rung, or the queue again.

As `transitions.py` for a plain job, whose one trial moves with it. A trial's end is not the job's: the tuner sees to
that.
"""

from __future__ import annotations

from sqlalchemy.orm import Session

from api.book import costs, objective, search_requests, studies
from api.book.events import QUEUE_CHANNEL, STUDY_CHANNEL, record_event, ring
from api.book.locks import now
from api.book.models import Attempt, Job, JsonObject, RungValue, Trial
from api.book.queries import held_trials
from api.book.status import REASONS, TERMINAL, Status
from training_core.contract.errors import Reason
from training_core.contract.spec import Search

_WORDS = {Reason.COMPLETED: "completed", Reason.EARLY_STOPPED: "completed, stopped early"}


def settle(session: Session, job: Job, trial: Trial, attempt: Attempt, *, error: JsonObject, losses_limit: int) -> None:
    """The trial's next status, and the job's where it waited for this attempt."""
    reason = Reason(attempt.reason or "")
    verdict = REASONS[reason]
    message = error.get("message") or str(reason)
    if job.cancel_requested_at is not None and verdict.status != Status.SUCCEEDED:
        studies.end_trial(session, job, trial, Reason.CANCELLED_BY_CLIENT, "cancelled with its search")
    elif verdict.status == Status.SUCCEEDED:
        _complete(session, job, trial, reason)
    elif reason == Reason.BUDGET_EXHAUSTED:
        _out_of_budget(session, job, trial, attempt)
    elif verdict.status in TERMINAL:
        studies.end_trial(session, job, trial, reason, message, error=error)
    elif reason == Reason.RUNG_REACHED:
        _wait(session, job, trial)
    else:
        _again(session, job, trial, attempt, error=error, losses_limit=losses_limit)
    session.flush()
    search_requests.settle(session, job)
    ring(session, STUDY_CHANNEL, job.id)
    ring(session, QUEUE_CHANNEL, job.id)


def _complete(session: Session, job: Job, trial: Trial, reason: Reason) -> None:
    """With a value for each objective; a training that came to its end without one has failed."""
    search = Search.model_validate(job.spec["search"])
    held = costs.total(session, job.id, now(session), trial=trial.number)
    values = objective.values_of(search, trial.result, held.device_seconds)
    if values is None:
        why = objective.why_missing(search, trial.result)
        hint = "let search.objective name a metric that the training reports"
        studies.end_trial(session, job, trial, Reason.OBJECTIVE_MISSING, why, error={"hint": hint})
        return
    trial.values = {**values}
    trial.reached = 1.0
    told = ", ".join(f"{metric} {value:.6g}" for metric, value in values.items())
    studies.end_trial(session, job, trial, reason, f"{_WORDS[reason]}: {told}")


def _wait(session: Session, job: Job, trial: Trial) -> None:
    """At the rung that it was to go to, for the tuner's decision; the values came by a report of their own."""
    row = session.get(RungValue, (job.id, trial.number, trial.rung)) if trial.rung is not None else None
    if row is None:
        why = f"the training ended at rung {trial.rung} without its values"
        studies.end_trial(session, job, trial, Reason.OBJECTIVE_MISSING, why)
        return
    trial.losses = 0
    trial.status, trial.reason, trial.why = Status.PAUSED, Reason.RUNG_REACHED, None
    data = {"rung": row.rung, "fraction": row.fraction, "step": row.step, "images": row.images, "values": row.values}
    told = ", ".join(f"{metric} {value}" for metric, value in row.values.items())
    message = f"Trial {trial.number} reached rung {row.rung} ({told})"
    record_event(session, job, "trial.paused", message, data, trial=trial.number)


def _out_of_budget(session: Session, job: Job, trial: Trial, attempt: Attempt) -> None:
    """The attempt used up its part of the budget; what others left of theirs is for all, else the search ends."""
    limit = costs.search_used_up(session, job, costs.Lent.to(attempt), now(session))
    if limit is not None:
        studies.stop(session, job, limit.reason)
    _queue(session, job, trial, attempt, "its part of the budget was used up")


def _again(session: Session, job: Job, trial: Trial, attempt: Attempt, *, error: JsonObject, losses_limit: int) -> None:
    reason, message = Reason(attempt.reason or ""), error.get("message") or attempt.reason or ""
    trial.losses = 0 if attempt.made_progress else trial.losses
    trial.losses += REASONS[reason].retry == "counted" and not _only_waited(job, attempt)
    if trial.losses > losses_limit:
        why = f"attempt {attempt.number} ended as {reason}: {message}. {losses_limit} retries brought no new checkpoint"
        studies.end_trial(session, job, trial, Reason.RETRIES_EXHAUSTED, why, error=error)
        return
    _queue(session, job, trial, attempt, message)


def _only_waited(job: Job, attempt: Attempt) -> bool:
    """Lost with its worker before it had a slot, with nothing to prepare: nothing that the trial could have caused."""
    return attempt.reason == Reason.WORKER_LOST and attempt.started_at is None and job.data_ready_at is not None


def _queue(session: Session, job: Job, trial: Trial, attempt: Attempt, message: str) -> None:
    reason = Reason(attempt.reason or "")
    level = "warning" if REASONS[reason].retry == "counted" else "info"
    trial.status, trial.reason = Status.QUEUED, reason
    data = {"attempt": attempt.number, "reason": reason}
    told = f"Trial {trial.number} is queued again: {message}"
    record_event(session, job, "trial.requeued", told, data, level=level, trial=trial.number)
    session.flush()
    if not held_trials(session, job.id):
        job.status, job.reason, job.queued_at = Status.QUEUED, reason, now(session)
        job.status_detail = told
