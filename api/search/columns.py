"""All trials of a search as columns, for what they say together. Nothing here writes or locks.

Postgres puts each column into one JSON array: ten thousand trials are then read in milliseconds, not in half a second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Double, cast, extract, func, select
from sqlalchemy.dialects.postgresql import JSON, aggregate_order_by, distinct_on
from sqlalchemy.orm import Session

from api.book.models import Attempt, RungValue, Trial
from training_core.contract.spec import Scalar, Search


@dataclass(frozen=True)
class Columns:
    """One entry a trial, by number. `values` are final ones, None until a trial came to its end.

    `ended` are the moments at which trials did, in seconds since 1970.
    """

    numbers: Sequence[int]
    statuses: Sequence[str]
    reached: Sequence[float]
    ended: Sequence[float | None]
    parameters: Mapping[str, Sequence[Scalar]]
    values: Mapping[str, Sequence[float | None]]


@dataclass(frozen=True)
class AtRungs:
    """Of each trial that came to a rung, by number: the fraction of the highest one, and its value there."""

    numbers: Sequence[int]
    fractions: Sequence[float]
    values: Sequence[float | str | None]


@dataclass(frozen=True)
class Spendings:
    """Of each attempt that ended, in the order in which they did: when, and what it used."""

    ended: Sequence[float]
    device_seconds: Sequence[float]


def columns_of(session: Session, job_id: str, search: Search, *, finished_only: bool = False) -> Columns:
    """All trials, or those with final values."""
    names, metrics = list(search.space), [one.metric for one in search.objectives]
    wanted = [
        Trial.number, Trial.status, Trial.reached, extract("epoch", Trial.finished_at),
        *(Trial.parameters[name] for name in names), *(Trial.values[metric] for metric in metrics),
    ]  # fmt: skip
    query = select(*(_column(one, Trial.number) for one in wanted)).where(Trial.job_id == job_id)
    if finished_only:
        query = query.where(func.jsonb_typeof(Trial.values) == "object")
    numbers, statuses, reached, ended, *rest = (found or [] for found in session.execute(query).one())
    parameters, values = rest[: len(names)], rest[len(names) :]
    return Columns(
        numbers, statuses, reached, ended, dict(zip(names, parameters, strict=True)),
        dict(zip(metrics, values, strict=True)),
    )  # fmt: skip


def at_highest_rungs(session: Session, job_id: str, metric: str) -> AtRungs:
    highest = (
        select(RungValue.trial, RungValue.fraction, RungValue.values[metric].label("value"))
        .where(RungValue.job_id == job_id)
        .ext(distinct_on(RungValue.trial))
        .order_by(RungValue.trial, RungValue.rung.desc())
        .subquery()
    )
    wanted = (highest.c.trial, highest.c.fraction, highest.c.value)
    found = session.execute(select(*(_column(one, highest.c.trial) for one in wanted))).one()
    return AtRungs(*(column or [] for column in found))


def spendings(session: Session, job_id: str) -> Spendings:
    device_seconds = func.coalesce(Attempt.held_seconds, 0.0) * Attempt.devices * Attempt.share
    wanted = (cast(extract("epoch", Attempt.finished_at), Double), device_seconds)
    query = select(*(_column(one, Attempt.finished_at) for one in wanted))
    found = session.execute(query.where(Attempt.job_id == job_id, Attempt.finished_at.is_not(None))).one()
    return Spendings(*(column or [] for column in found))


def _column(value: Any, order: Any) -> ColumnElement[Any]:
    return func.json_agg(aggregate_order_by(value, order), type_=JSON)
