"""What each report of a run means to the book: one function for a batch, one short `match` for a line."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime

from pydantic import ValidationError
from sqlalchemy import func, select
from sqlalchemy.exc import DataError, IntegrityError
from sqlalchemy.orm import Session

from api.book import endings, lifecycle, series
from api.book.endings import End
from api.book.events import record_event, touch
from api.book.ids import new_id
from api.book.locks import StaleAttempt, guard
from api.book.models import Attempt, Checkpoint, Job, JsonObject
from api.control import findings
from training_core import events as reports
from training_core.wire import Reason

_SEQ = re.compile(rb'"seq":\s*(\d{1,18})')


def apply_lines(
    session: Session, attempt_id: str, lines: Sequence[bytes], losses_limit: int, *, careful: bool = False
) -> int:
    """Write the lines that continue the attempt's sequence; returns the last number that needs no further sending.

    Lines known already are passed over, lines behind a gap wait until the journal sends the gap. What a stale or
    unknown attempt says counts as read and changes nothing. `careful` gives each line a savepoint of its own, so
    that one which the tables refuse becomes an alert instead of holding up the rest.
    """
    attempt = session.scalars(select(Attempt).where(Attempt.id == attempt_id)).one_or_none()
    if attempt is None:
        return max((_sequence_number(line) or 0 for line in lines), default=0)
    batch = _Batch(session, attempt, losses_limit, careful=careful)
    for line in lines:
        seq = _sequence_number(line)
        if seq is None or seq <= attempt.last_seq:
            continue
        if seq > attempt.last_seq + 1:
            break
        batch.take(line)
        attempt.last_seq = seq
    batch.close()
    return attempt.last_seq


def _sequence_number(line: bytes) -> int | None:
    found = _SEQ.search(line)
    return int(found.group(1)) if found else None


class _Batch:
    """Applies lines in order and gathers metric points, so that each series is written once a batch."""

    def __init__(self, session: Session, attempt: Attempt, losses_limit: int, *, careful: bool) -> None:
        self.session, self.attempt, self.losses_limit, self.careful = session, attempt, losses_limit, careful
        self.points: dict[str, list[series.Point]] = defaultdict(list)
        self.taken = 0
        self.job: Job | None
        try:
            self.job = guard(session, attempt)  # locks job, trial and attempt until the caller commits
        except StaleAttempt:
            self.job = None

    def take(self, line: bytes) -> None:
        if self.job is None:
            return None
        self.taken += 1
        try:
            report = reports.decode(line)
        except ValidationError as error:
            fields = ", ".join(sorted({str(part) for item in error.errors() for part in item["loc"]}))
            return self._refuse(self.job, fields)
        if not self.careful:
            return self._apply(self.job, report)
        try:
            with self.session.begin_nested():
                self._apply(self.job, report)
                self.write_points()
        except (DataError, IntegrityError) as error:
            self.points.clear()
            self._refuse(self.job, f"{report.kind}: {type(error.orig).__name__}")
        return None

    def close(self) -> None:
        """Write what was gathered and count one change for the whole batch."""
        self.write_points()
        if self.job is not None and self.taken:
            touch(self.session, self.job)

    def _refuse(self, job: Job, what: str) -> None:
        message = f"A report of the worker could not be read ({what})"
        record_event(self.session, job, "alert.raised", message, {"alert": "unreadable_report"}, level="warning")

    def _apply(self, job: Job, report: reports.AnyReport) -> None:
        match report:
            case reports.Claimed():
                lifecycle.claim(self.session, self.attempt)
            case reports.Started():
                self.write_points()
                series.cut_after(self.session, job.id, self.attempt.trial, report.resumed_from_step)
                lifecycle.start(self.session, self.attempt, report.resumed_from_step, _moment(report.at))
            case reports.Metric():
                self._gather(report)
            case reports.Finished():
                self.write_points()
                error = report.model_dump(exclude={"kind", "seq", "at", "reason", "held_seconds"}, exclude_none=True)
                told = End(_reason(report.reason), _moment(report.at), report.held_seconds, error)
                endings.finish(self.session, self.attempt, told, self.losses_limit)
            case reports.CheckpointSaved() | reports.CheckpointDeleted():
                self._checkpoint(job, report)
            case reports.DataReady():
                _data_ready(self.session, job, self.attempt, report)
            case reports.Probed():
                lifecycle.use_devices(self.attempt, _moment(report.at))
                findings.probed(self.session, self.attempt, report)
            case reports.PlanChosen():
                lifecycle.use_devices(self.attempt, _moment(report.at))
                _describe(self.session, job, report)
            case reports.ArtifactSaved():
                findings.artifact_saved(self.session, job, self.attempt, report)
            case _:
                _describe(self.session, job, report)

    def _gather(self, report: reports.Metric) -> None:
        moment = report.measured_at if report.measured_at is not None else report.at
        for name, value in report.values.items():
            self.points[name].append(series.Point(report.step, report.epoch, moment, value))

    def write_points(self) -> None:
        for name, points in self.points.items():
            series.append(self.session, self.attempt.job_id, self.attempt.trial, name, points)
        self.points.clear()

    def _checkpoint(self, job: Job, report: reports.CheckpointSaved | reports.CheckpointDeleted) -> None:
        known = self.session.scalars(
            select(Checkpoint).where(Checkpoint.job_id == job.id, Checkpoint.path == report.path)
        ).one_or_none()
        if isinstance(report, reports.CheckpointDeleted):
            if known is not None and known.deleted_at is None:
                known.deleted_at = func.now()
                record_event(
                    self.session, job, "checkpoint.deleted", f"Checkpoint of step {known.step} deleted",
                    {"id": known.id, "step": known.step},
                )  # fmt: skip
            return
        if known is not None:
            known.kept_because = report.kept_because
            return
        values = report.model_dump(mode="json", exclude={"kind", "seq", "at"})
        row = Checkpoint(
            id=new_id("ckpt"), job_id=job.id, trial=self.attempt.trial, attempt=self.attempt.number, **values
        )
        self.session.add(row)
        self.attempt.made_progress = True
        detail = {"id": row.id, "step": row.step, "kept_because": row.kept_because, "metrics": values["metrics"]}
        record_event(self.session, job, "checkpoint.saved", f"Checkpoint of step {row.step} saved", detail)


def _data_ready(session: Session, job: Job, attempt: Attempt, report: reports.DataReady) -> None:
    lifecycle.data_ready(session, attempt, _moment(report.at))
    job.data = _facts(report)
    splits = ", ".join(f"{name} {count:,}" for name, count in report.images.items() if count)
    message = f"{sum(report.images.values()):,} images of {len(report.classes)} classes are ready ({splits})"
    record_event(session, job, "data.ready", message, job.data)


def _data_reported(report: reports.DataReported) -> str:
    """For example `7,000 images inspected: 2 exact duplicates, 31 blurred; 2 images left out`."""
    found = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in report.findings.items() if count)
    left_out = sum(report.removed.values())
    ending = f"; {left_out:,} {'image' if left_out == 1 else 'images'} left out" if left_out else ""
    return f"{report.images:,} images inspected: {found or 'nothing found'}{ending}"


def _facts(report: reports.AnyReport) -> JsonObject:
    facts: JsonObject = json.loads(report.model_dump_json(exclude={"kind", "seq", "at"}))
    return facts


def _describe(session: Session, job: Job, report: reports.AnyReport) -> None:
    """Reports that fill a column of the job or become an event as they are."""
    facts = _facts(report)
    match report:
        case reports.DataReported():
            job.data_report = facts
            record_event(session, job, "data.report", _data_reported(report), facts)
        case reports.PlanChosen():
            job.plan = facts
            record_event(session, job, "plan.chosen", f"{report.total_steps} steps planned", facts)
        case reports.FirstStep():
            job.first_step_at = job.first_step_at or _moment(report.at)
        case reports.Progress():
            job.progress = facts
        case reports.OomRecovered():
            record_event(session, job, "oom.recovered", findings.oom_message(report), facts, level="warning")
        case reports.Efficiency():
            job.efficiency = facts
        case reports.EarlyStopped():
            message = f"No new best {report.metric} in {report.patience} evaluations; the best was {report.best:.4g}"
            record_event(session, job, "job.early_stopped", message, facts)
        case reports.AlertRaised():
            data = {**facts["data"], "alert": report.alert}
            level = findings.ALERT_LEVELS.get(report.alert, "warning")
            record_event(session, job, "alert.raised", report.message, data, level=level)
        case reports.Summary():
            job.result = facts


def _reason(value: str) -> Reason:
    """A reason that a newer worker knows and we do not is still an end, and never a success."""
    try:
        return Reason(value)
    except ValueError:
        return Reason.TRAINING_ERROR


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
