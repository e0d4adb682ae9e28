"""How a search ends: with what it found, at a limit, or for the reason that its trials failed for."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from api.book import studies
from api.book.locks import now
from api.book.models import Attempt, Job, JsonObject, Trial
from api.book.queries import stopping
from api.book.status import Status
from api.search.decide import leader
from api.search.view import End, StudyView
from training_core.contract.errors import Reason

_SPENT = {Reason.BUDGET_EXHAUSTED: "the budget is used up", Reason.TIME_LIMIT: "search.max_hours is over"}
_AGAIN = "a new search goes on from here when its search.warm_start names this one"
_GO_ON = "a new search with more of it goes on from here when its search.warm_start names this one"


def end(session: Session, job: Job, move: End) -> None:
    """As decided; for a search without a result with what most of its trials failed for."""
    if move.reason == Reason.SEARCH_ERROR:
        studies.end(session, job, move.reason, move.message, {"hint": f"tell its operator, and {_AGAIN}"})
        return
    if move.reason != Reason.ALL_TRIALS_FAILED:
        studies.end(session, job, move.reason, move.message)
        return
    cause = _root_cause(session, job)
    message = f"{move.message}: {cause['message']}" if cause else move.message
    studies.end(session, job, move.reason, message, cause)


def time_is_up(session: Session, job: Job, view: StudyView) -> bool:
    """Whether `search.max_hours` have gone by, on the database's clock, since a host took its first trial."""
    if view.search.max_hours is None:
        return False
    began = session.execute(select(func.min(Attempt.claimed_at)).where(Attempt.job_id == job.id)).scalar_one()
    return began is not None and now(session) - began >= timedelta(hours=view.search.max_hours)


def end_at_limit(session: Session, job: Job, view: StudyView) -> None:
    """A search that was stopped there, and whose last trial has come back: with its best so far, if it has any."""
    reason = Reason(stopping(job) or Reason.BUDGET_EXHAUSTED)
    spent, best = _SPENT[reason], leader(view)
    if best is not None:
        where = "" if best.values is not None else f", as far as rung {max(best.at_rungs)}"
        message = f"Ended early, as {spent}: trial {best.number} is the best of {len(view.trials)}{where}"
        studies.end(session, job, Reason.LIMIT_REACHED, message)
    else:
        hint = {"hint": _GO_ON.replace("a new search", "raise it: a new search")}
        studies.end(session, job, reason, f"{spent.capitalize()}, and no trial has a value yet", hint)


def _root_cause(session: Session, job: Job) -> JsonObject | None:
    """What most failed trials failed for, as the first of them tells it, with how many they are."""
    failed = select(Trial.number, Trial.error).where(Trial.job_id == job.id, Trial.status == Status.FAILED)
    errors = [(number, error or {}) for number, error in session.execute(failed.order_by(Trial.number))]
    counted = Counter((error.get("code"), error.get("message")) for _, error in errors)
    if not counted:
        return None
    (code, message), count = counted.most_common(1)[0]
    number, error = next(one for one in errors if (one[1].get("code"), one[1].get("message")) == (code, message))
    alike = f"trial {number}" if count == 1 else f"trial {number} and {count - 1} more"
    return {**error, "trial": number, "message": f"{message} ({code}, {alike})"}
