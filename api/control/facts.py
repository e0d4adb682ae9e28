"""Reports that fill a column of the book, or become an event as they are.

A plain job's are the job's own; those of a search's trial are the trial's, but for the data, which all trials share.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime

from sqlalchemy import func
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from api.book import lifecycle
from api.book.events import record_event
from api.book.models import Attempt, Job, JsonObject, RungValue, Trial
from api.book.queries import checkpoint_ids, is_search
from api.control import findings
from training_core.contract import reports


def data_ready(session: Session, job: Job, attempt: Attempt, report: reports.DataReady) -> None:
    """Of a search, the first time counts: all its trials train on the same version of the data."""
    known = is_search(job) and job.data_ready_at is not None
    lifecycle.data_ready(session, attempt, moment(report.at))
    if known:
        return
    job.data = facts_of(report)
    splits = ", ".join(f"{name} {count:,}" for name, count in report.images.items() if count)
    message = f"{sum(report.images.values()):,} images of {len(report.classes)} classes are ready ({splits})"
    record_event(session, job, "data.ready", message, job.data)


def rung_reached(session: Session, trial: Trial, attempt: Attempt, report: reports.RungReached) -> None:
    """Into the rung store. A trial that walks the same stretch again says so again, and the newest word counts."""
    facts = facts_of(report)
    values = {name: facts[name] for name in ("rung", "fraction", "step", "images", "values")}
    statement = insert(RungValue).values(job_id=trial.job_id, trial=trial.number, attempt=attempt.number, **values)
    newer = {name: statement.excluded[name] for name in ("attempt", *values) if name != "rung"}
    key = [RungValue.job_id, RungValue.trial, RungValue.rung]
    session.execute(
        statement.on_conflict_do_update(index_elements=key, set_={**newer, "reported_at": func.now()}),
        execution_options={"populate_existing": True},
    )
    trial.reached = report.fraction


def describe(session: Session, job: Job, trial: Trial, attempt: Attempt, report: reports.AnyReport) -> None:
    """All other reports; those that a newer worker knows and we do not never come here."""
    facts, of = facts_of(report), trial if is_search(job) else job

    def event(kind: str, message: str, data: JsonObject = facts, level: str = "info") -> None:
        record_event(session, job, kind, message, data, level=level, trial=trial.number)

    match report:
        case reports.DataReported():
            job.data_report = facts
            record_event(session, job, "data.report", _data_reported(report), facts)
        case reports.PlanChosen():
            if of is job or of.plan is None:  # the next stretch of a trial goes by the same plan
                event("plan.chosen", f"{report.total_steps} steps planned")
            of.plan = facts
        case reports.FirstStep():
            job.first_step_at = job.first_step_at or moment(report.at)
        case reports.Progress():
            of.progress = facts
        case reports.OomRecovered():
            event("oom.recovered", findings.oom_message(report), level="warning")
        case reports.Efficiency():
            of.efficiency = facts
            attempt.training_seconds, attempt.evaluation_seconds = _spent_on(report.account)
        case reports.EarlyStopped():
            event("trial.early_stopped" if of is trial else "job.early_stopped", _why_early(report))
        case reports.AlertRaised():
            level = findings.ALERT_LEVELS.get(report.alert, "warning")
            event("alert.raised", report.message, {**facts["data"], "alert": report.alert}, level)
        case reports.Summary():
            path = report.best_checkpoint or ""
            of.result = facts | {"best_checkpoint": checkpoint_ids(session, job.id, [path]).get(path)}


def facts_of(report: reports.AnyReport) -> JsonObject:
    facts: JsonObject = json.loads(report.model_dump_json(exclude={"kind", "seq", "at"}))
    return facts


def moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _spent_on(account: JsonObject) -> tuple[float, float]:
    """Seconds in steps and in evaluations, by an efficiency account."""
    steps = sum(part["seconds"] for part in account.get("steps", {}).values())
    return steps, account.get("phases", {}).get("evaluate", {}).get("seconds", 0.0)


def _why_early(report: reports.EarlyStopped) -> str:
    if report.target is not None:
        return f"{report.metric} reached its target {report.target:g}: {report.best:.4g} at step {report.best_step}"
    return f"No new best {report.metric} in {report.patience} evaluations; the best was {report.best:.4g}"


def _data_reported(report: reports.DataReported) -> str:
    """For example `7,000 images inspected: 2 exact duplicates, 31 blurred; 2 images left out`."""
    found = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in report.findings.items() if count)
    left_out = sum(report.removed.values())
    ending = f"; {left_out:,} {'image' if left_out == 1 else 'images'} left out" if left_out else ""
    return f"{report.images:,} images inspected: {found or 'nothing found'}{ending}"
