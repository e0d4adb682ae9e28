"""What a job has used of its devices and its money over all its attempts, and what its limits leave.

What an attempt held its devices for is its worker's measurement. While it runs, and for one whose worker was lost, it
is counted from the first report of its training, by the clock of its host. A reservation that waits for a slot costs
nothing. Money is `Decimal`, never a float.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal

from sqlalchemy import ColumnElement, Double, Numeric, case, cast, extract, func, literal, select, type_coerce
from sqlalchemy.orm import Session

from api.book.models import Attempt, Job, JsonObject, Trial
from api.book.queries import trial_spec
from training_core.contract.errors import Reason
from training_core.contract.spec import Budget

HOUR_SECONDS = 3600
WARN_FROM = 0.8  # of a limit
LEAST_SECONDS = 1.0  # an attempt that may take less is not begun
LEAST_TRIAL_SECONDS = 5.0  # and a search whose budget leaves less ends
CENT_OF_A_CENT = Decimal("0.0001")


@dataclass(frozen=True)
class Lent:
    """What an attempt gets: devices of one kind, by which profile and for which price an hour for all together.

    `share` is the part of its one device that it takes, and pays for.
    """

    device: str
    devices: int
    profile: str | None = None
    price_per_hour: Decimal | None = None
    currency: str | None = None
    share: float = 1.0

    @property
    def size(self) -> float:
        """In devices."""
        return self.devices * self.share

    def part(self, share: float) -> Lent:
        """That part of it, where it is one device; several are lent whole."""
        if self.devices != 1 or share == 1:
            return self
        price = None if self.price_per_hour is None else self.price_per_hour * Decimal(str(share))
        return replace(self, share=share, price_per_hour=price)

    @classmethod
    def to(cls, attempt: Attempt) -> Lent:
        price, share = attempt.price_per_hour, attempt.share
        return cls(attempt.device, attempt.devices, attempt.profile, price, attempt.currency, share)


@dataclass(frozen=True)
class Spent:
    """`cost` is None where no attempt had a price; all attempts of a job are paid in one currency."""

    seconds: float = 0.0
    device_seconds: float = 0.0
    cost: Decimal | None = None
    currency: str | None = None


@dataclass(frozen=True)
class Limit:
    """One limit of a job: the spec's field, the reason that a job ends with there, the fraction used, what is left."""

    field: str
    reason: Reason
    used: float
    left_seconds: float


def held_seconds(attempt: Attempt, until: datetime, now: datetime) -> float:
    """How long the attempt used its devices until `until`; a host's wrong clock counts no more than we saw go by."""
    if attempt.held_seconds is not None:
        return attempt.held_seconds
    if attempt.started_at is None:
        return 0.0
    seconds = (until - attempt.started_at).total_seconds()
    return max(0.0, min(seconds, seconds_since_booking(attempt, now)))


def seconds_since_booking(attempt: Attempt, now: datetime) -> float:
    """By the database's clock: no attempt has used its devices for longer."""
    return (now - attempt.booked_at).total_seconds()


def total(session: Session, job_id: str, moment: datetime, *, trial: int | None = None) -> Spent:
    """Over all attempts of a job, or of one of its trials, those that still run until `moment`."""
    held = _held_seconds(moment)
    paid = cast(held, Numeric) * Attempt.price_per_hour / HOUR_SECONDS
    sums = select(
        func.coalesce(func.sum(held), 0.0),
        func.coalesce(func.sum(held * Attempt.devices * Attempt.share), 0.0),
        type_coerce(func.sum(paid), Numeric),
        func.max(Attempt.currency),
    ).where(Attempt.job_id == job_id)
    if trial is not None:
        sums = sums.where(Attempt.trial == trial)
    seconds, device_seconds, cost, currency = session.execute(sums).one()
    return Spent(seconds, device_seconds, cost, currency)


def _held_seconds(moment: datetime) -> ColumnElement[float]:
    """`held_seconds` of each attempt until `moment`, as an expression."""
    since_start = extract("epoch", literal(moment) - Attempt.started_at)
    since_booking = extract("epoch", literal(moment) - Attempt.booked_at)
    counted = func.greatest(0.0, func.least(since_start, since_booking))
    told = case((Attempt.started_at.is_(None), 0.0), else_=counted)
    return cast(func.coalesce(Attempt.held_seconds, told), Double)


def price(seconds: float, per_hour: Decimal) -> Decimal:
    return Decimal(str(seconds)) * per_hour / HOUR_SECONDS


def money(amount: Decimal | None) -> str | None:
    """As the API writes it: four places, never an exponent."""
    return None if amount is None else f"{amount.quantize(CENT_OF_A_CENT):f}"


def time_limit(spec: JsonObject, so_far: Spent) -> Limit:
    """`compute.max_hours` of a stored spec."""
    whole = spec["compute"]["max_hours"] * HOUR_SECONDS
    return Limit("compute.max_hours", Reason.TIME_LIMIT, so_far.seconds / whole, whole - so_far.seconds)


def budget_limits(spec: JsonObject, so_far: Spent, lent: Lent) -> list[Limit]:
    """The budget of a stored spec, in seconds of what is `lent`."""
    budget = Budget.model_validate(spec.get("budget") or {})
    found = []
    if budget.max_device_hours is not None:
        whole = budget.max_device_hours * HOUR_SECONDS
        left = (whole - so_far.device_seconds) / (lent.size or 1)
        found.append(Limit("budget.max_device_hours", Reason.BUDGET_EXHAUSTED, so_far.device_seconds / whole, left))
    if budget.max_cost is not None and lent.price_per_hour:
        cost = so_far.cost or Decimal(0)
        left = float((budget.max_cost - cost) * HOUR_SECONDS / lent.price_per_hour)
        found.append(Limit("budget.max_cost", Reason.BUDGET_EXHAUSTED, float(cost / budget.max_cost), left))
    return found


def first_limit(session: Session, job: Job, lent: Lent, moment: datetime) -> Limit:
    """The limit that a plain job meets first on `lent`."""
    so_far = total(session, job.id, moment)
    return _first([time_limit(job.spec, so_far), *budget_limits(job.spec, so_far, lent)])


def used_up(session: Session, job: Job, lent: Lent, moment: datetime) -> Limit | None:
    """The limit that leaves nothing for another attempt on `lent`, if one does; for a job that had one."""
    if job.dispatched_at is None or not lent.devices:
        return None
    first = first_limit(session, job, lent, moment)
    return first if first.left_seconds < LEAST_SECONDS else None


def search_limit(session: Session, job: Job, lent: Lent, moment: datetime) -> Limit | None:
    """The limit of all its trials together that a search meets first, by devices such as `lent`; None without any."""
    if all(value is None for value in (job.spec.get("budget") or {}).values()):
        return None
    return min(budget_limits(job.spec, total(session, job.id, moment), lent), key=_left, default=None)


def search_used_up(session: Session, job: Job, lent: Lent, moment: datetime) -> Limit | None:
    """The budget that leaves nothing for another attempt of any trial, if it does."""
    limit = search_limit(session, job, lent, moment)
    return limit if limit is not None and limit.left_seconds < LEAST_TRIAL_SECONDS else None


def trial_limit(session: Session, job: Job, trial: Trial, lent: Lent, moment: datetime) -> Limit:
    """The limit that an attempt of a search's trial meets first: its own time, or its part of what the budget leaves.

    All attempts that are open now, this one too, have equal parts.
    """
    own = trial_spec(job, trial).model_dump(mode="json", include={"compute"})
    found = [time_limit(own, total(session, job.id, moment, trial=trial.number))]
    of_all = search_limit(session, job, lent, moment)
    if of_all is not None:
        beside = select(func.count()).where(Attempt.job_id == job.id, Attempt.finished_at.is_(None))
        sharing = max(1, session.execute(beside).scalar_one())
        found.append(replace(of_all, left_seconds=of_all.left_seconds / sharing))
    return _first(found)


def _first(limits: list[Limit]) -> Limit:
    return min(limits, key=_left)


def _left(limit: Limit) -> float:
    return limit.left_seconds


def way_out(field: str) -> str:
    return f"raise {field} in a new job whose model.weights is the id of this job, which stands for its best checkpoint"
