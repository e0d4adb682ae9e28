"""The plan of a search as a whole: its trials in whole trainings, its hours, its cost, and what it could start from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

from sqlalchemy import select
from sqlalchemy.orm import Session

from api import render_search, schemas
from api.book import costs, queries
from api.book.costs import HOUR_SECONDS, money
from api.book.models import Job, Worker
from api.profiles import Profile
from api.search import concurrency, cost
from api.search.snapshot import misfits
from training_core.contract.compute_plan import Prediction
from training_core.contract.spec import JobSpec, Search

OFFERS = 16  # as many as search.warm_start takes


@dataclass(frozen=True)
class Known:
    """Of one whole training, and of where it would be; `spread` are the lowest and highest factor of its prediction."""

    prediction: Prediction | None
    profile: Profile | None
    workers: Sequence[Worker]
    spread: tuple[float, float]


@dataclass(frozen=True)
class Expected:
    """Of the whole search: hours on the clock, hours of devices, and the price of those, all as predicted."""

    hours: float
    device_hours: float
    price: Decimal | None


def plan_of(session: Session, project_id: str, spec: JobSpec, known: Known) -> schemas.SearchPlan:
    """What the search takes beside one whole training of it."""
    search = _of(spec)
    placed, expected = concurrency.place(spec, known.profile, known.workers), _expected(spec, known)
    return schemas.SearchPlan(
        trials=render_search.wanted(search),
        parallel=placed.parallel,
        share=placed.share,
        ladder=list(cost.ladder_of(search)),
        trainings=round(cost.trainings(search), 2),
        hours=_range(expected.hours, known) if expected is not None else None,
        device_hours=_range(expected.device_hours, known) if expected is not None else None,
        cost=_cost_range(expected, known) if expected is not None else None,
        warm_start=offers(session, project_id, spec),
    )


def _of(spec: JobSpec) -> Search:
    assert spec.search is not None  # noqa: S101  the caller has a search
    return spec.search


def _range(value: float, known: Known) -> schemas.HoursRange:
    low, high = known.spread
    return schemas.HoursRange(low=value * low, high=value * high)


def _cost_range(expected: Expected, known: Known) -> schemas.CostRange | None:
    if expected.price is None or known.profile is None:
        return None
    low, high = (money(expected.price * Decimal(str(factor))) or "" for factor in known.spread)
    return schemas.CostRange(low=low, high=high, currency=known.profile.currency)


def _expected(spec: JobSpec, known: Known) -> Expected | None:
    """None while nothing is predicted. No search takes less time than one training of it."""
    prediction, profile = known.prediction, known.profile
    if prediction is None or profile is None:
        return None
    placed, whole = concurrency.place(spec, profile, known.workers), cost.trainings(_of(spec))
    hours = max(prediction.hours, whole * prediction.hours / (placed.parallel * placed.share))
    price = costs.price(whole * prediction.hours * HOUR_SECONDS, profile.price_per_hour)
    return Expected(hours, whole * prediction.device_hours, price if profile.price_per_hour else None)


def limit_warnings(spec: JobSpec, known: Known) -> Iterator[str]:
    """For each limit that the whole search, or one training of it, is predicted not to keep."""
    expected, prediction, profile = _expected(spec, known), known.prediction, known.profile
    if expected is None or prediction is None or profile is None:
        return
    search, budget = _of(spec), spec.budget
    all_of_it = f"the search is predicted to take {cost.trainings(search):.3g} trainings"
    if prediction.hours > spec.compute.max_hours:
        one = f"one training is predicted to take {prediction.hours:.3g} h"
        yield f"compute.max_hours is {spec.compute.max_hours:g}, and {one}: trials end there, as failed"
    if search.max_hours is not None and expected.hours > search.max_hours:
        found = f"{all_of_it}, {expected.hours:.3g} h"
        yield f"search.max_hours is {search.max_hours:g}, and {found}: {_ends(search.max_hours, prediction.hours)}"
    if budget.max_device_hours is not None and expected.device_hours > budget.max_device_hours:
        found = f"{all_of_it}, {expected.device_hours:.3g} device hours"
        ends = _ends(budget.max_device_hours, prediction.device_hours)
        yield f"budget.max_device_hours is {budget.max_device_hours:g}, and {found}: {ends}"
    if budget.max_cost is not None and expected.price is not None and expected.price > budget.max_cost:
        one_price = float(costs.price(prediction.hours * HOUR_SECONDS, profile.price_per_hour))
        found = f"{all_of_it}, for {money(expected.price)} {profile.currency}"
        yield f"budget.max_cost is {budget.max_cost:f}, and {found}: {_ends(float(budget.max_cost), one_price)}"


def _ends(limit: float, one_training: float) -> str:
    if limit < one_training:
        return "not even one whole training fits, so it may end without a value"
    return "it ends there with the best trial so far; fewer trials fit"


def offers(session: Session, project_id: str, spec: JobSpec) -> list[schemas.WarmStart]:
    """Earlier searches of the project with the same space on the same data, which this one does not name yet."""
    search = _of(spec)
    same = select(Job).where(Job.project_id == project_id, Job.dataset_key == queries.dataset_key(spec))
    same = same.where(Job.spec["search"]["space"] == search.model_dump(mode="json")["space"], Job.study.is_not(None))
    found = session.scalars(same.order_by(Job.id.desc()).limit(OFFERS)).all()
    return [_offer(row) for row in found if row.id not in search.warm_start and _fits(session, spec, row)]


def _fits(session: Session, spec: JobSpec, row: Job) -> bool:
    """By the rules of search.warm_start itself."""
    named = _of(spec).model_copy(update={"warm_start": [row.id]})
    return not misfits(session, row.project_id, spec.model_copy(update={"search": named}))


def _offer(row: Job) -> schemas.WarmStart:
    best = (row.study or {}).get("best")
    return schemas.WarmStart(id=row.id, name=row.name, status=row.status, trials=render_search.ended(row), best=best)
