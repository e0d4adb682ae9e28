"""Efficiency accounts: of a training, of one trial, and of a search summed up over the attempts of its trials."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, case, func, select
from sqlalchemy.orm import Session

from api import accounts, schemas
from api.book import costs, queries
from api.book.costs import HOUR_SECONDS, Spent
from api.book.models import Attempt, Job, Trial
from api.profiles import Profiles

LENT = Attempt.devices * Attempt.share
HELD = func.coalesce(Attempt.held_seconds, 0.0) * LENT
SPENT_WELL = (Attempt.training_seconds + Attempt.evaluation_seconds) * LENT
OVERHEAD = HELD - SPENT_WELL  # None where an attempt has no account


def efficiency(session: Session, row: Job, profiles: Profiles) -> schemas.EfficiencyAnswer | None:
    """None until the training has reported its first account."""
    attempt = queries.newest_attempt(session, row.id)
    so_far = costs.total(session, row.id, row.updated_at)
    cost = accounts.cost(row, attempt, so_far, profiles)
    return _efficiency(row, so_far, job_id=row.id, trial=None, phases=accounts.phase_seconds(row), cost=cost)


def trial_efficiency(session: Session, row: Job, trial: Trial, profiles: Profiles) -> schemas.EfficiencyAnswer | None:
    """Of one trial; a plain job's one trial has the account of the job."""
    if not queries.is_search(row):
        return efficiency(session, row, profiles)
    so_far = costs.total(session, row.id, row.updated_at, trial=trial.number)
    cost = None
    if so_far.cost is not None:
        accrued, currency = costs.money(so_far.cost) or "", so_far.currency or ""
        cost = schemas.Cost(accrued=accrued, projected=None, limit=None, currency=currency)
    phases = accounts.trial_phase_seconds(trial)
    return _efficiency(trial, so_far, job_id=row.id, trial=trial.number, phases=phases, cost=cost)


def _efficiency(
    told: Job | Trial, so_far: Spent, *, job_id: str, trial: int | None, phases: dict[str, float],
    cost: schemas.Cost | None,
) -> schemas.EfficiencyAnswer | None:  # fmt: skip
    if told.efficiency is None:
        return None
    return schemas.EfficiencyAnswer(
        job_id=job_id,
        trial=trial,
        step=told.efficiency["step"],
        final=told.efficiency["final"],
        account=told.efficiency["account"],
        measured=accounts.measured(told.efficiency["account"], so_far),
        prediction=(told.plan or {}).get("prediction"),
        phases=phases,
        cost=cost,
        device_hours=round(so_far.device_seconds / HOUR_SECONDS, 6),
    )


def search_efficiency(session: Session, row: Job) -> schemas.SearchEfficiencyAnswer:
    """Over all attempts; of those that still run only `device_seconds` know."""
    device_seconds = costs.total(session, row.id, row.updated_at).device_seconds
    ended = (Attempt.job_id == row.id, Attempt.finished_at.is_not(None))
    accounted = case((OVERHEAD.is_not(None), HELD), else_=0.0)
    sums = select(
        func.count(Attempt.trial.distinct()), func.count(), _sum(accounted), _sum(Attempt.training_seconds * LENT),
        _sum(Attempt.evaluation_seconds * LENT), _sum(OVERHEAD), _median(OVERHEAD),
    ).where(*ended)  # fmt: skip
    trials, attempts, known, training, evaluation, overhead, of_attempts = session.execute(sums).one()
    by_trial = select(func.sum(OVERHEAD).label("overhead")).where(*ended).group_by(Attempt.trial).subquery()
    of_trials = session.execute(select(_median(by_trial.c.overhead))).scalar_one()
    return schemas.SearchEfficiencyAnswer(
        job_id=row.id,
        trials=trials,
        attempts=attempts,
        device_seconds=round(device_seconds, 3),
        training_seconds=round(training, 3),
        evaluation_seconds=round(evaluation, 3),
        overhead_seconds=round(overhead, 3),
        unaccounted_seconds=round(max(0.0, device_seconds - known), 3),
        overhead_per_trial_seconds=of_trials,
        overhead_per_attempt_seconds=of_attempts,
        device_hours=round(device_seconds / HOUR_SECONDS, 6),
    )


def _sum(value: Any) -> ColumnElement[float]:
    return func.coalesce(func.sum(value), 0.0)


def _median(value: Any) -> ColumnElement[float | None]:
    return func.percentile_cont(0.5).within_group(value)
