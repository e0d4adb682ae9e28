"""What each report of a run means to the book: one function for a batch, one short `match` for a line."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.exc import DataError, IntegrityError
from sqlalchemy.orm import Session

from api.book import lifecycle, series, transitions
from api.book.events import record_event, touch
from api.book.locks import StaleAttempt, current
from api.book.models import Attempt, Job, Trial
from api.book.transitions import End
from api.control import facts, findings
from training_core.contract import reports
from training_core.contract.errors import Reason

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
        self.current: tuple[Job, Trial] | None
        try:
            self.current = current(session, attempt)  # locks job, trial and attempt until the caller commits
        except StaleAttempt:
            self.current = None

    def take(self, line: bytes) -> None:
        if self.current is None:
            return None
        job, trial = self.current
        self.taken += 1
        try:
            report = reports.decode(line)
        except ValidationError as error:
            fields = ", ".join(sorted({str(part) for item in error.errors() for part in item["loc"]}))
            return self._refuse(job, fields)
        if not self.careful:
            return self._apply(job, trial, report)
        try:
            with self.session.begin_nested():
                self._apply(job, trial, report)
                self.write_points()
        except (DataError, IntegrityError) as error:
            self.points.clear()
            self._refuse(job, f"{report.kind}: {type(error.orig).__name__}")
        return None

    def close(self) -> None:
        """Write what was gathered and count one change for the whole batch."""
        self.write_points()
        if self.current is not None and self.taken:
            touch(self.session, self.current[0])

    def _refuse(self, job: Job, what: str) -> None:
        message = f"A report of the worker could not be read ({what})"
        data = {"alert": "unreadable_report"}
        record_event(self.session, job, "alert.raised", message, data, level="warning", trial=self.attempt.trial)

    def _apply(self, job: Job, trial: Trial, report: reports.AnyReport) -> None:
        match report:
            case reports.Claimed():
                lifecycle.claim(self.session, self.attempt)
            case reports.Started():
                self.write_points()
                series.cut_after(self.session, job.id, self.attempt.trial, report.resumed_from_step)
                lifecycle.start(self.session, self.attempt, report.resumed_from_step, facts.moment(report.at))
            case reports.Metric():
                self._gather(report)
            case reports.Finished():
                self.write_points()
                error = report.model_dump(exclude={"kind", "seq", "at", "reason", "held_seconds"}, exclude_none=True)
                told = End(_reason(report.reason), facts.moment(report.at), report.held_seconds, error)
                transitions.finish(self.session, self.attempt, told, self.losses_limit)
            case reports.CheckpointSaved() | reports.CheckpointDeleted():
                findings.checkpoint(self.session, job, trial, self.attempt, report)
            case reports.DataReady():
                facts.data_ready(self.session, job, self.attempt, report)
            case reports.RungReached():
                self.write_points()
                facts.rung_reached(self.session, trial, self.attempt, report)
            case reports.Probed():
                lifecycle.use_devices(self.attempt, facts.moment(report.at))
                findings.probed(self.session, self.attempt, report)
            case reports.PlanChosen():
                lifecycle.use_devices(self.attempt, facts.moment(report.at))
                facts.describe(self.session, job, trial, self.attempt, report)
            case reports.ArtifactSaved():
                findings.artifact_saved(self.session, job, self.attempt, report)
            case _:
                facts.describe(self.session, job, trial, self.attempt, report)

    def _gather(self, report: reports.Metric) -> None:
        moment = report.measured_at if report.measured_at is not None else report.at
        for name, value in report.values.items():
            self.points[name].append(series.Point(report.step, report.epoch, moment, value))

    def write_points(self) -> None:
        for name, points in self.points.items():
            series.append(self.session, self.attempt.job_id, self.attempt.trial, name, points)
        self.points.clear()


def _reason(value: str) -> Reason:
    """A reason that a newer worker knows and we do not is still an end, and never a success."""
    try:
        return Reason(value)
    except ValueError:
        return Reason.TRAINING_ERROR
