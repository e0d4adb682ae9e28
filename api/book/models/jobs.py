"""A job, its trials with their rungs, and their attempts."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Text,
    UniqueConstraint,
    desc,
    func,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from api.book.models.base import Base, JsonObject
from api.book.status import HELD, TERMINAL, Status
from training_core.contract.spec import Work


def _among(column: str, statuses: list[Status]) -> str:
    return f"{column} IN ({', '.join(repr(str(status)) for status in statuses)})"


_ANY = _among("status", [status for status in Status if status != Status.PRUNED])
_ANY_TRIAL = _among("status", list(Status))
_OPEN = _among("status", [status for status in Status if status not in TERMINAL])
_HELD = _among("status", [status for status in Status if status in HELD])
_BUSY = _among("status", [Status.QUEUED, Status.PREPARING, Status.RUNNING])  # what the dispatcher looks through


# Whether the dispatcher may book something of a job, and its lane (`lanes.py`): all that decides where it fits. SQL, as
# the index on them serves only what is asked for in the same words.
WAITING = (
    "jobs.cancel_requested_at IS NULL AND jobs.pause_requested_at IS NULL AND (jobs.study ->> 'stopping') IS NULL"
    " AND (jobs.status = 'queued' OR"
    " (jobs.status IN ('preparing', 'running') AND (jobs.spec ->> 'search') IS NOT NULL))"
)
_SHARE = (
    "CASE WHEN coalesce(jobs.spec #>> '{compute,share}', 'auto') = 'auto'"
    " THEN coalesce(jobs.study ->> 'share', '1.0') ELSE jobs.spec #>> '{compute,share}' END"
)
LANE = (
    "(jobs.work || CASE WHEN (jobs.spec ->> 'search') IS NULL THEN '|plain' ELSE '|search' END"
    " || CASE WHEN jobs.data_ready_at IS NULL THEN '|new|' ELSE '|ready|' END"
    f" || ({_SHARE}) || '|' || coalesce(jobs.spec #>> '{{compute,profile}}', 'auto'))"
)


class Job(Base):
    """A training, a search, or a dataset check (`work`). `version` counts visible changes (the ETag), `last_event_seq`
    events.

    `wished_by` is the key that asked last for a cancel or a pause. `dataset_key` is the digest of the spec's dataset
    part, by which later plans find what is known of that data; `dataset_id` is the upload that it reads, if it reads
    one. A search has its trials' plans, results and progress in their rows, and in `study` how far it is as a whole.
    """

    __tablename__ = "jobs"

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    name: Mapped[str | None]
    external_id: Mapped[str | None]
    work: Mapped[Work] = mapped_column(Text, server_default="train")
    spec: Mapped[JsonObject]
    spec_version: Mapped[int]
    priority: Mapped[int]
    labels: Mapped[JsonObject]
    client_metadata: Mapped[JsonObject]

    status: Mapped[str]
    reason: Mapped[str]
    status_detail: Mapped[str | None]
    cancel_requested_at: Mapped[datetime | None]
    pause_requested_at: Mapped[datetime | None]
    wished_by: Mapped[str | None]
    profile_requested_at: Mapped[datetime | None]
    budget_warned_at: Mapped[datetime | None]
    version: Mapped[int] = mapped_column(BigInteger, default=1)
    last_event_seq: Mapped[int] = mapped_column(BigInteger, default=0)

    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())
    queued_at: Mapped[datetime] = mapped_column(server_default=func.now())
    dispatched_at: Mapped[datetime | None]
    data_ready_at: Mapped[datetime | None]
    processes_up_at: Mapped[datetime | None]
    first_step_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]

    progress: Mapped[JsonObject | None]
    data: Mapped[JsonObject | None]
    data_report: Mapped[JsonObject | None]
    plan: Mapped[JsonObject | None]
    result: Mapped[JsonObject | None]
    efficiency: Mapped[JsonObject | None]
    error: Mapped[JsonObject | None]
    study: Mapped[JsonObject | None]
    dataset_key: Mapped[str | None]
    dataset_id: Mapped[str | None] = mapped_column(ForeignKey("datasets.id"))

    __table_args__ = (
        CheckConstraint(_ANY, name="status_known"),
        CheckConstraint(f"(finished_at IS NULL) = ({_OPEN})", name="finished_when_terminal"),
        CheckConstraint("status <> 'failed' OR error IS NOT NULL", name="failed_has_error"),
        CheckConstraint("work IN ('train', 'check')", name="work_known"),
        CheckConstraint("work <> 'check' OR status <> 'running'", name="check_never_trains"),
        CheckConstraint("work <> 'check' OR status <> 'paused'", name="check_never_pauses"),
        CheckConstraint(
            "status <> 'paused' OR (pause_requested_at IS NULL AND cancel_requested_at IS NULL)",
            name="paused_has_no_wish",
        ),
        Index("ix_jobs_project_newest", "project_id", "id"),
        Index("ix_jobs_open", "status", "priority", "id", postgresql_where=f"({_BUSY})"),
        Index("ix_jobs_lanes", "project_id", text(LANE), desc("priority"), "id", postgresql_where=WAITING),
        Index("ix_jobs_searches", "finished_at", postgresql_where="study IS NOT NULL"),
        Index("ix_jobs_dataset", "project_id", "dataset_key", postgresql_where="dataset_key IS NOT NULL"),
        Index("ix_jobs_upload", "dataset_id", postgresql_where="dataset_id IS NOT NULL"),
        UniqueConstraint("project_id", "external_id"),
    )


class Trial(Base):
    """One training of the job. `attempt` is the number of the newest attempt and the fencing token of all writes.

    In a search: `parameters` by their path in the spec, and where they came from (`origin`: `point`, `random`, `tpe`).
    The next attempt goes to `rung`, at the fraction `until` of the whole training; without `until` to its end. It has
    come as far as `reached`. `values` are the final ones by metric, `why` says why it ended as it did, in words.
    `adopts` is the checkpoint of another trial that a member of a population goes on from. `sampler` is what Optuna's
    sampler noted about it.
    """

    __tablename__ = "trials"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    status: Mapped[str]
    reason: Mapped[str]
    attempt: Mapped[int] = mapped_column(default=0)
    losses: Mapped[int] = mapped_column(default=0)
    parameters: Mapped[JsonObject] = mapped_column(default=dict, server_default="{}")
    origin: Mapped[str | None]
    rung: Mapped[int | None]
    until: Mapped[float | None]
    reached: Mapped[float] = mapped_column(default=0.0, server_default="0")
    adopts: Mapped[str | None]
    values: Mapped[JsonObject | None]
    why: Mapped[str | None]
    sampler: Mapped[JsonObject | None]
    progress: Mapped[JsonObject | None]
    plan: Mapped[JsonObject | None]
    result: Mapped[JsonObject | None]
    efficiency: Mapped[JsonObject | None]
    error: Mapped[JsonObject | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint(_ANY_TRIAL, name="status_known"),
        CheckConstraint(f"(finished_at IS NULL) = ({_OPEN})", name="finished_when_terminal"),
        CheckConstraint(f"NOT ({_HELD}) OR attempt > 0", name="held_by_an_attempt"),
        CheckConstraint("until > 0 AND until <= 1", name="until_is_a_fraction"),
        CheckConstraint("reached >= 0 AND reached <= 1", name="reached_is_a_fraction"),
        Index("ix_trials_open", "status", "job_id", postgresql_where=f"({_OPEN})"),
    )


class RungValue(Base):
    """What a trial of a search was worth at a rung: the rung store of successive halving, and of `median`."""

    __tablename__ = "rung_values"

    job_id: Mapped[str] = mapped_column(primary_key=True)
    trial: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    rung: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    attempt: Mapped[int]
    fraction: Mapped[float]
    step: Mapped[int] = mapped_column(BigInteger)
    images: Mapped[int]
    values: Mapped[JsonObject]
    reported_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (
        ForeignKeyConstraint(["job_id", "trial"], ["trials.job_id", "trials.number"]),
        CheckConstraint("fraction > 0 AND fraction <= 1", name="fraction_is_one"),
    )


class Attempt(Base):
    """One execution of a trial. `last_seq` is the last report in the book; `slots.py` says when `devices` are held.

    `share` is the part of its one device that it takes. `profile`, `price_per_hour` (of all that it takes) and
    `currency` are those it was booked by. `started_at` is when it began to use its devices, by its host's clock,
    `held_seconds` how long it did; `costs.py` adds them up. `training_seconds` and `evaluation_seconds` of it were in
    steps and in evaluations, by its efficiency account.
    """

    __tablename__ = "attempts"

    id: Mapped[str] = mapped_column(primary_key=True)
    job_id: Mapped[str]
    trial: Mapped[int]
    number: Mapped[int]
    worker: Mapped[str]
    incarnation: Mapped[str]
    device: Mapped[str]
    devices: Mapped[int]
    share: Mapped[float] = mapped_column(default=1.0, server_default="1")
    profile: Mapped[str | None]
    price_per_hour: Mapped[Decimal | None]
    currency: Mapped[str | None]
    resume_from: Mapped[str | None]
    last_seq: Mapped[int] = mapped_column(BigInteger, default=0)
    made_progress: Mapped[bool] = mapped_column(default=False)
    reason: Mapped[str | None]
    booked_at: Mapped[datetime] = mapped_column(server_default=func.now())
    sent_at: Mapped[datetime | None]
    claimed_at: Mapped[datetime | None]
    data_ready_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    held_seconds: Mapped[float | None]
    training_seconds: Mapped[float | None]
    evaluation_seconds: Mapped[float | None]

    __table_args__ = (
        ForeignKeyConstraint(["job_id", "trial"], ["trials.job_id", "trials.number"]),
        UniqueConstraint("job_id", "trial", "number"),
        CheckConstraint("devices >= 0", name="devices_not_negative"),
        CheckConstraint("share > 0 AND share <= 1 AND (share = 1 OR devices <= 1)", name="share_of_one_device"),
        CheckConstraint("held_seconds >= 0", name="held_seconds_not_negative"),
        CheckConstraint("(finished_at IS NULL) = (reason IS NULL)", name="finished_has_reason"),
        Index("ix_attempts_open", "worker", postgresql_where="finished_at IS NULL"),
    )
