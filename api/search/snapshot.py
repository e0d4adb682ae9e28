"""A search out of the book, as its decisions see it, with what earlier searches found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from api.book.models import Checkpoint, Job, RungValue, Trial
from api.book.queries import dataset_key
from api.book.status import Status
from api.search.view import StudyView, TrialView, Values
from training_core.contract.errors import Reason
from training_core.contract.spec import JobSpec, Search

_FINISHED = [Status.SUCCEEDED, Status.PRUNED]
_COLUMNS = (
    Trial.number, Trial.status, Trial.reason, Trial.parameters, Trial.origin, Trial.rung, Trial.until, Trial.reached,
    Trial.values, Trial.sampler,
)  # fmt: skip


@dataclass(frozen=True)
class Misfit:
    """An earlier search that this one cannot start from, by its place in `search.warm_start`."""

    index: int
    why: str


def load(session: Session, job: Job) -> StudyView:
    """All trials of the search by number, and the finished ones of those that it starts warm from."""
    spec = JobSpec.model_validate(job.spec)
    assert spec.search is not None  # noqa: S101  the caller has a search
    earlier = [
        trial
        for other in spec.search.warm_start
        for trial in _trials(session, other, finished_only=True)
        if trial.origin != "retrain"
    ]
    return StudyView(spec.search, _trials(session, job.id), earlier, spec=spec)


def misfits(session: Session, project_id: str, spec: JobSpec) -> list[Misfit]:
    """The earlier searches named in `spec` that know nothing of its trials: of other data, another space, or none."""
    if spec.search is None:
        return []
    found = [_why_not(session, project_id, spec, spec.search, other) for other in spec.search.warm_start]
    return [Misfit(index, why) for index, why in enumerate(found) if why is not None]


def _why_not(session: Session, project_id: str, spec: JobSpec, search: Search, other: str) -> str | None:
    row = session.execute(
        select(Job.spec["search"], Job.dataset_key).where(Job.id == other, Job.project_id == project_id)
    ).one_or_none()
    if row is None or row[0] is None:
        return "There is no such search in this project"
    earlier = Search.model_validate(row[0])
    if row[1] != dataset_key(spec):
        return "This search ran on other data: its dataset part differs"
    if differing := sorted(_differing(search.space, earlier.space)):
        return f"This search had another space: {', '.join(differing)}"
    if missing := sorted({one.metric for one in search.objectives} - {one.metric for one in earlier.objectives}):
        return f"The trials of this search have no value of {', '.join(missing)}"
    return None


def _differing(one: Mapping[str, object], other: Mapping[str, object]) -> set[str]:
    return {name for name in one.keys() | other.keys() if one.get(name) != other.get(name)}


def _trials(session: Session, job_id: str, *, finished_only: bool = False) -> list[TrialView]:
    query = select(*_COLUMNS).where(Trial.job_id == job_id).order_by(Trial.number)
    if finished_only:
        query = query.where(Trial.status.in_(_FINISHED))
    at_rungs, checkpoints = _at_rungs(session, job_id), _checkpoints(session, job_id)
    return [
        TrialView(
            number=row.number,
            status=Status(row.status),
            reason=Reason(row.reason),
            parameters=row.parameters,
            origin=row.origin or "",
            rung=row.rung,
            until=row.until,
            reached=row.reached,
            at_rungs=at_rungs.get(row.number, {}),
            values=_numbers(row.values),
            checkpoint=checkpoints.get(row.number),
            job_id=job_id if finished_only else None,
            sampler=row.sampler or {},
        )
        for row in session.execute(query)
    ]


def _at_rungs(session: Session, job_id: str) -> dict[int, dict[int, Values]]:
    query = select(RungValue.trial, RungValue.rung, RungValue.values).where(RungValue.job_id == job_id)
    found: dict[int, dict[int, Values]] = {}
    for trial, rung, values in session.execute(query):
        found.setdefault(trial, {})[rung] = _numbers(values) or {}
    return found


def _checkpoints(session: Session, job_id: str) -> dict[int, str]:
    """The newest of each trial that still exists, by its path."""
    query = select(Checkpoint.trial, Checkpoint.path).where(
        Checkpoint.job_id == job_id, Checkpoint.deleted_at.is_(None)
    )
    return dict(_pairs(session.execute(query.order_by(Checkpoint.attempt, Checkpoint.step))))


def _pairs(rows: Iterable[Any]) -> Iterable[tuple[int, str]]:
    return ((row.trial, row.path) for row in rows)


def _numbers(values: Mapping[str, Any] | None) -> Values | None:
    """The book keeps NaN and infinities as strings."""
    return None if values is None else {name: float(value) for name, value in values.items()}
