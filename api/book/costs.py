"""What a job has used of its devices and its money over all its attempts, and what its limits leave.

What an attempt held its devices for is its worker's measurement. While it runs, and for one whose worker was lost, it
is counted from the first report of its training, by the clock of its host. A reservation that waits for a slot costs
nothing. Money is `Decimal`, never a float.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from api.book.models import Attempt, Job, JsonObject
from training_core.spec import Budget
from training_core.wire import Reason

HOUR_SECONDS = 3600
WARN_FROM = 0.8  # of a limit
LEAST_SECONDS = 1.0  # an attempt that may take less is not begun
CENT_OF_A_CENT = Decimal("0.0001")


@dataclass(frozen=True)
class Lent:
    """What an attempt gets: devices of one kind, by which profile and for which price an hour for all together."""

    device: str
    devices: int
    profile: str | None = None
    price_per_hour: Decimal | None = None
    currency: str | None = None

    @classmethod
    def to(cls, attempt: Attempt) -> Lent:
        return cls(attempt.device, attempt.devices, attempt.profile, attempt.price_per_hour, attempt.currency)


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


def spent(attempts: Sequence[Attempt], now: datetime) -> Spent:
    """Over all `attempts` of a job, those that still run until `now`."""
    seconds = device_seconds = 0.0
    cost, currency = None, None
    for attempt in attempts:
        held = held_seconds(attempt, now, now)
        seconds += held
        device_seconds += held * attempt.devices
        if attempt.price_per_hour:
            cost = (cost or Decimal(0)) + price(held, attempt.price_per_hour)
            currency = attempt.currency
    return Spent(seconds, device_seconds, cost, currency)


def price(seconds: float, per_hour: Decimal) -> Decimal:
    return Decimal(str(seconds)) * per_hour / HOUR_SECONDS


def money(amount: Decimal | None) -> str | None:
    """As the API writes it: four places, never an exponent."""
    return None if amount is None else f"{amount.quantize(CENT_OF_A_CENT):f}"


def limits(spec: JsonObject, so_far: Spent, devices: int, price_per_hour: Decimal | None) -> list[Limit]:
    """The limits of a stored spec on devices of this price, the one that is reached first before the others."""
    budget = Budget.model_validate(spec.get("budget") or {})
    max_seconds = spec["compute"]["max_hours"] * HOUR_SECONDS
    found = [Limit("compute.max_hours", Reason.TIME_LIMIT, so_far.seconds / max_seconds, max_seconds - so_far.seconds)]
    if budget.max_device_hours is not None:
        whole = budget.max_device_hours * HOUR_SECONDS
        left = (whole - so_far.device_seconds) / max(1, devices)
        found.append(Limit("budget.max_device_hours", Reason.BUDGET_EXHAUSTED, so_far.device_seconds / whole, left))
    if budget.max_cost is not None and price_per_hour:
        left_cost = budget.max_cost - (so_far.cost or 0)
        left = float(left_cost * HOUR_SECONDS / price_per_hour)
        found.append(
            Limit("budget.max_cost", Reason.BUDGET_EXHAUSTED, float((so_far.cost or 0) / budget.max_cost), left)
        )
    return sorted(found, key=lambda limit: limit.left_seconds)


def first_limit(job: Job, attempts: Sequence[Attempt], lent: Lent, now: datetime) -> Limit:
    """The limit that the job meets first on `lent`."""
    return limits(job.spec, spent(attempts, now), lent.devices, lent.price_per_hour)[0]


def used_up(job: Job, attempts: Sequence[Attempt], lent: Lent, now: datetime) -> Limit | None:
    """The limit that leaves nothing for another attempt on `lent`, if one does."""
    if not attempts or not lent.devices:
        return None
    first = first_limit(job, attempts, lent, now)
    return first if first.left_seconds < LEAST_SECONDS else None


def way_out(field: str) -> str:
    return f"raise {field} in a new job whose model.weights is the path of this job's last checkpoint"
