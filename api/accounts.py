"""A job's cost, and its efficiency account as clients see it: measurement beside prediction."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from itertools import pairwise
from typing import Any

from api import render_search, schemas
from api.book import costs, queries
from api.book.costs import HOUR_SECONDS, Spent, money
from api.book.models import Attempt, Job, Trial
from api.book.status import TERMINAL
from api.profiles import Profiles
from training_core.contract.spec import Budget, Search

JsonObject = dict[str, Any]


def cost(row: Job, newest: Attempt | None, so_far: Spent, profiles: Profiles) -> schemas.Cost | None:
    """As of the job's last change, so that the ETag covers it; None where nothing has a price."""
    lent = _paid_by(row, newest, profiles)
    if lent is None:
        return None
    per_hour, currency = lent
    limit = Budget.model_validate(row.spec.get("budget") or {}).max_cost
    accrued = so_far.cost or Decimal(0)
    projected = None if row.status in TERMINAL else _projected(row, accrued, per_hour)
    return schemas.Cost(accrued=money(accrued) or "", projected=money(projected), limit=money(limit), currency=currency)


def _paid_by(row: Job, newest: Attempt | None, profiles: Profiles) -> tuple[Decimal, str] | None:
    """The price of the newest attempt, or of the profile that the first one will have."""
    if newest is not None:
        return (newest.price_per_hour, newest.currency or "") if newest.price_per_hour else None
    profile = profiles.by_name.get(row.spec["compute"]["profile"])
    return (profile.price_per_hour, profile.currency) if profile is not None and profile.price_per_hour else None


def _projected(row: Job, accrued: Decimal, per_hour: Decimal) -> Decimal | None:
    if queries.is_search(row):
        return _projected_search(row, accrued)
    if row.progress:
        return accrued + costs.price(row.progress["eta_seconds"], per_hour)
    predicted = (row.plan or {}).get("prediction")
    return None if predicted is None else costs.price(predicted["hours"] * HOUR_SECONDS, per_hour)


def _projected_search(row: Job, accrued: Decimal) -> Decimal | None:
    """The trials to come cost what those that ended did; None before one has."""
    done, search = render_search.ended(row), Search.model_validate(row.spec["search"])
    return accrued * max(done, render_search.wanted(search)) / done if done else None


def summary(told: JsonObject | None, so_far: Spent) -> schemas.EfficiencySummary | None:
    """Of a training's newest report; None until it has reported its first account."""
    if told is None:
        return None
    account = told["account"]
    verdict = account.get("verdict") or {}
    return schemas.EfficiencySummary(
        final=told["final"],
        step=told["step"],
        verdict=verdict.get("kind"),
        remedy=verdict.get("remedy"),
        ratio_to_bound=(account.get("speed") or {}).get("ratio"),
        measured=measured(account, so_far),
    )


def measured(account: JsonObject, so_far: Spent) -> JsonObject:
    """By the names of the plan's prediction; the hours are those of all attempts."""
    speed = (account.get("speed") or {}).get("images_per_second")
    compared = {name: pair["measured"] for name, pair in (account.get("compared") or {}).items()}
    return {
        **compared,
        "step_seconds": account.get("step_seconds"),
        "images_per_second": speed,
        "memory_bytes": (account.get("memory") or {}).get("peak_bytes"),
        "hours": round(so_far.seconds / HOUR_SECONDS, 6),
        "device_hours": round(so_far.device_seconds / HOUR_SECONDS, 6),
    }


def phase_seconds(row: Job) -> dict[str, float]:
    """Seconds up to each moment of the job from the one before it, in the order in which they came."""
    return _apart({
        "queued": row.created_at, "dispatched": row.dispatched_at, "data_ready": row.data_ready_at,
        "processes_up": row.processes_up_at, "first_step": row.first_step_at, "finished": row.finished_at,
    })  # fmt: skip


def trial_phase_seconds(trial: Trial) -> dict[str, float]:
    """As `phase_seconds`; what a trial waited at rungs is in the last of them."""
    return _apart({"queued": trial.created_at, "started": trial.started_at, "finished": trial.finished_at})


def _apart(moments: Mapping[str, datetime | None]) -> dict[str, float]:
    known = sorted((moment, name) for name, moment in moments.items() if moment is not None)
    return {name: round((after - before).total_seconds(), 3) for (before, _), (after, name) in pairwise(known)}
