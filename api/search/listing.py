"""Reads of trials: pages in any order, and what belongs to the trials of a page. Nothing here writes or locks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Select, Text, cast, func, literal, select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session, defer

from api import cursors
from api.book.models import Attempt, Checkpoint, RungValue, Trial
from training_core.contract.spec import Scalar, Search

BY_NUMBER = ("number", "created")  # numbers are given in the order in which trials are made
HEAVY = (Trial.plan, Trial.result, Trial.efficiency, Trial.sampler)


class UnreadableCursor(Exception):
    """No `next_cursor` of a page in this order."""


@dataclass(frozen=True)
class TrialFilter:
    """Every given part narrows the list; `least` and `most` are by metric, or by a parameter's path."""

    statuses: Sequence[str] = ()
    origins: Sequence[str] = ()
    least: Mapping[str, float] = field(default_factory=dict)
    most: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Order:
    """By number, or by a metric or a parameter; trials without one come last, and equal ones by their number."""

    name: str = "number"
    descending: bool = False

    @property
    def by_number(self) -> bool:
        return self.name in BY_NUMBER


def names_of(search: Search) -> list[str]:
    """What trials of a search can be sorted and narrowed by, beside their number."""
    return ["value", *(one.metric for one in search.objectives), *search.space]


def page(
    session: Session, job_id: str, search: Search | None, narrow: TrialFilter, order: Order, *, after: str | None,
    limit: int,
) -> Sequence[Trial]:  # fmt: skip
    """Behind the trial that `after` was made of; one more than `limit` tells that there is a next page.

    Heavy columns are left out. Raises `UnreadableCursor`.
    """
    query = select(Trial).where(Trial.job_id == job_id).options(*(defer(column, raiseload=True) for column in HEAVY))
    if narrow.statuses:
        query = query.where(Trial.status.in_(narrow.statuses))
    if narrow.origins:
        query = query.where(Trial.origin.in_(narrow.origins))
    for name, bound in narrow.least.items():
        query = query.where(_is_number(search, name), _key(search, name) >= _json(bound))
    for name, bound in narrow.most.items():
        query = query.where(_is_number(search, name), _key(search, name) <= _json(bound))
    query = _in_order(query, search, order, _read_cursor(after) if after is not None else None)
    return session.scalars(query.limit(limit + 1)).all()


def cursor(search: Search | None, order: Order, trial: Trial) -> str:
    """Where the page ends that ends with `trial`; `k` is missing where the trial has no such value."""
    place: dict[str, Any] = {"n": trial.number}
    if not order.by_number and search is not None:
        column, name = _place(search, order.name)
        values = (trial.values if column == "values" else trial.parameters) or {}
        place |= {"k": values[name]} if name in values else {}
    return cursors.write(place)


def _read_cursor(text: str) -> dict[str, Any]:
    try:
        place = cursors.read(text)
    except cursors.Unreadable:
        raise UnreadableCursor from None
    number = place.get("n")
    if type(number) is not int or not 0 <= number < 2**31 or not place.keys() <= {"n", "k"}:
        raise UnreadableCursor
    return place


def _in_order(query: Select[Trial], search: Search | None, order: Order, place: dict[str, Any] | None) -> Select[Trial]:
    number = Trial.number
    if order.by_number:
        if place is not None:
            query = query.where(number < place["n"] if order.descending else number > place["n"])
        return query.order_by(number.desc() if order.descending else number)
    key = _key(search, order.name)
    if place is not None and "k" not in place:
        query = query.where(key.is_(None), number > place["n"])
    elif place is not None:
        known = _json(place["k"])
        further = key < known if order.descending else key > known
        query = query.where(further | key.is_(None) | ((key == known) & (number > place["n"])))
    return query.order_by((key.desc() if order.descending else key.asc()).nulls_last(), number)


def _place(search: Search | None, name: str) -> tuple[str, str]:
    """The column that holds what is called `name`, and its name there."""
    if search is None or name in search.space:
        return "parameters", name
    return "values", search.objectives[0].metric if name == "value" else name


def _key(search: Search | None, name: str) -> ColumnElement[Any]:
    """As JSON, which Postgres orders whatever it is: numbers by size, texts by letters."""
    column, inner = _place(search, name)
    whole = Trial.values if column == "values" else Trial.parameters
    return whole[inner]


def _is_number(search: Search | None, name: str) -> ColumnElement[bool]:
    return func.jsonb_typeof(_key(search, name)) == "number"


def _json(value: Scalar) -> ColumnElement[Any]:
    return cast(literal(json.dumps(value), Text), JSONB)


def trial_of(session: Session, job_id: str, number: int) -> Trial | None:
    return session.get(Trial, (job_id, number))


def best_of(session: Session, job_id: str, metric: str, *, maximize: bool) -> Trial | None:
    """Of the trials that came to their end; the first of equal ones."""
    key = Trial.values[metric]
    query = select(Trial).where(Trial.job_id == job_id, func.jsonb_typeof(key) == "number")
    return session.scalars(query.order_by(key.desc() if maximize else key, Trial.number).limit(1)).first()


@dataclass(frozen=True)
class Belongings:
    """Of some trials, by number: what they came to at rungs, their attempts, and the checkpoint to take."""

    rungs: Mapping[int, Sequence[RungValue]]
    attempts: Mapping[int, Sequence[Attempt]]
    checkpoints: Mapping[int, Checkpoint]


def belongings(session: Session, job_id: str, numbers: Sequence[int]) -> Belongings:
    rungs: dict[int, list[RungValue]] = {}
    query = select(RungValue).where(RungValue.job_id == job_id, RungValue.trial.in_(numbers)).order_by(RungValue.rung)
    for value in session.scalars(query):
        rungs.setdefault(value.trial, []).append(value)
    attempts: dict[int, list[Attempt]] = {}
    booked = select(Attempt).where(Attempt.job_id == job_id, Attempt.trial.in_(numbers)).order_by(Attempt.number)
    for attempt in session.scalars(booked):
        attempts.setdefault(attempt.trial, []).append(attempt)
    kept = select(Checkpoint).where(
        Checkpoint.job_id == job_id, Checkpoint.trial.in_(numbers), Checkpoint.deleted_at.is_(None)
    )
    best_last = kept.order_by(Checkpoint.kept_because == "best", Checkpoint.step, Checkpoint.attempt)
    return Belongings(rungs, attempts, {row.trial: row for row in session.scalars(best_last)})
