"""A search as the file of an Optuna journal (`JournalStorage`), which optuna-dashboard and Optuna itself open.

One JSON object a line: the study, then each trial as Optuna would have written it when it was added complete.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, distribution_to_json
from optuna.study import StudyDirection
from optuna.trial import TrialState
from sqlalchemy import select
from sqlalchemy.orm import Session, defer

from api.book.database import Sessions
from api.book.models import RungValue, Trial
from api.book.status import Status
from api.search.space import distributions, encode
from training_core.contract.spec import CategoricalParameter, Search

PAGE = 500  # trials that are read at once; no connection is held while the client reads
CREATE_STUDY, SET_STUDY_USER_ATTR, CREATE_TRIAL = 0, 2, 4  # operations of Optuna's journal
STATES = {
    Status.QUEUED: TrialState.WAITING,
    Status.SUCCEEDED: TrialState.COMPLETE,
    Status.PRUNED: TrialState.PRUNED,
    Status.FAILED: TrialState.FAIL,
    Status.CANCELLED: TrialState.FAIL,
}


def lines(sessions: Sessions, job_id: str, name: str, search: Search) -> Iterator[str]:
    """The whole file, read from the book as it is written; trials by their number."""
    directions = [StudyDirection.MAXIMIZE if one.maximize else StudyDirection.MINIMIZE for one in search.objectives]
    yield _line(CREATE_STUDY, study_name=name, directions=directions)
    for key, value in (("trainyard:job", job_id), ("trainyard:objectives", [one.metric for one in search.objectives])):
        yield _line(SET_STUDY_USER_ATTR, study_id=0, user_attr={key: value})
    kinds = {key: distribution_to_json(kind) for key, kind in _with_choices(search).items()}
    number = -1
    while True:
        with sessions() as session:
            trials = _trials(session, job_id, number)
            rungs = _rungs(session, job_id, trials)
        yield from (
            _line(CREATE_TRIAL, **_trial(trial, rungs.get(trial.number, []), search, kinds)) for trial in trials
        )
        if len(trials) < PAGE:
            return
        number = trials[-1].number


def _line(operation: int, **fields: Any) -> str:
    """NaN stands as Python writes and reads it, which is what Optuna does."""
    return json.dumps({"op_code": operation, "worker_id": "trainyard", **fields}, separators=(",", ":")) + "\n"


def _with_choices(search: Search) -> dict[str, BaseDistribution]:
    """As the sampler has them, but with the choices in place of their numbers."""
    return {
        name: CategoricalDistribution(parameter.choices) if isinstance(parameter, CategoricalParameter) else kind
        for (name, kind), parameter in (
            ((name, kind), search.space[name]) for name, kind in distributions(search.space).items()
        )
    }


def _trials(session: Session, job_id: str, after: int) -> Sequence[Trial]:
    """Without what only reports say, which is most of a row."""
    unread = [defer(column, raiseload=True) for column in (Trial.plan, Trial.result, Trial.efficiency, Trial.progress)]
    query = select(Trial).options(*unread).where(Trial.job_id == job_id, Trial.number > after)
    return session.scalars(query.order_by(Trial.number).limit(PAGE)).all()


def _rungs(session: Session, job_id: str, trials: Sequence[Trial]) -> dict[int, list[RungValue]]:
    if not trials:
        return {}
    between = RungValue.trial.between(trials[0].number, trials[-1].number)
    found: dict[int, list[RungValue]] = {}
    for value in session.scalars(select(RungValue).where(RungValue.job_id == job_id, between)):
        found.setdefault(value.trial, []).append(value)
    return found


def _trial(trial: Trial, rungs: Sequence[RungValue], search: Search, kinds: dict[str, str]) -> dict[str, Any]:
    point = encode(search.space, trial.parameters)
    metric = search.objectives[0].metric
    values = [(trial.values or {}).get(one.metric, math.nan) for one in search.objectives]
    complete = trial.status == Status.SUCCEEDED and not any(math.isnan(value) for value in values)
    state = STATES.get(Status(trial.status), TrialState.RUNNING)
    fields: dict[str, Any] = {
        "study_id": 0,
        "state": TrialState.FAIL if state == TrialState.COMPLETE and not complete else state,
        "value": values[0] if complete and len(values) == 1 else None,
        "values": values if complete and len(values) > 1 else None,
        "datetime_start": _time(trial.started_at),
        "params": point,
        "distributions": {name: kinds[name] for name in point},
        "user_attrs": {"status": trial.status, "reason": trial.reason, "why": trial.why, "origin": trial.origin,
                       "reached": trial.reached},
        "system_attrs": trial.sampler or {},
        "intermediate_values": {rung.step: float(rung.values[metric]) for rung in rungs if metric in rung.values},
    }  # fmt: skip
    return fields if trial.finished_at is None else {**fields, "datetime_complete": _time(trial.finished_at)}


def _time(moment: datetime | None) -> str | None:
    return moment.isoformat(timespec="microseconds") if moment is not None else None
