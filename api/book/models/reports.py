"""What trainings reported: events, metrics, and what they left in the store."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, ForeignKeyConstraint, Index, UniqueConstraint, func
from sqlalchemy.orm import Mapped, mapped_column

from api.book.models.base import Base, JsonObject


class Event(Base):
    """One numbered fact about a job; the list and the stream show the same object. `key_id` is who caused it."""

    __tablename__ = "events"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    type: Mapped[str]
    trial: Mapped[int | None]
    level: Mapped[str]
    message: Mapped[str]
    data: Mapped[JsonObject]
    key_id: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (CheckConstraint("level IN ('info', 'warning', 'error')", name="level_known"),)


class MetricChunk(Base):
    """Up to 512 points of one series as arrays of equal length; steps rise strictly along a series."""

    __tablename__ = "metric_chunks"

    job_id: Mapped[str] = mapped_column(primary_key=True)
    trial: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    first_step: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    last_step: Mapped[int] = mapped_column(BigInteger)
    steps: Mapped[list[int]]
    epochs: Mapped[list[float]]
    times: Mapped[list[float]]
    values: Mapped[list[float]]

    __table_args__ = (
        ForeignKeyConstraint(["job_id", "trial"], ["trials.job_id", "trials.number"]),
        CheckConstraint(
            "cardinality(steps) = cardinality(values) AND cardinality(steps) = cardinality(epochs)"
            " AND cardinality(steps) = cardinality(times)",
            name="arrays_match",
        ),
        CheckConstraint("first_step <= last_step", name="steps_rise"),
    )


class Checkpoint(Base):
    """`path` is relative to the store; a row exists only for a checkpoint whose manifest was written.
    `sha256` and sizes (`files`) are by name, the manifest's too.

    While `pinned_at` is set its folder holds a file that keeps retention away.
    """

    __tablename__ = "checkpoints"

    id: Mapped[str] = mapped_column(primary_key=True)
    job_id: Mapped[str]
    trial: Mapped[int]
    attempt: Mapped[int]
    path: Mapped[str]
    step: Mapped[int] = mapped_column(BigInteger)
    epoch: Mapped[float]
    metrics: Mapped[JsonObject]
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    files: Mapped[JsonObject]
    sha256: Mapped[JsonObject]
    kept_because: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    deleted_at: Mapped[datetime | None]
    pinned_at: Mapped[datetime | None]

    __table_args__ = (
        ForeignKeyConstraint(["job_id", "trial"], ["trials.job_id", "trials.number"]),
        UniqueConstraint("job_id", "path"),
        Index("ix_checkpoints_kept", "job_id", "trial", postgresql_where="deleted_at IS NULL"),
    )


class Artifact(Base):
    """A profiler trace or an exported model, complete at `path` in the store; `sha256` and sizes (`files`) by name."""

    __tablename__ = "artifacts"

    id: Mapped[str] = mapped_column(primary_key=True)
    job_id: Mapped[str]
    trial: Mapped[int]
    attempt: Mapped[int]
    kind: Mapped[str]
    format: Mapped[str]
    path: Mapped[str]
    step: Mapped[int] = mapped_column(BigInteger)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    files: Mapped[JsonObject]
    sha256: Mapped[JsonObject]
    about: Mapped[JsonObject]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (
        ForeignKeyConstraint(["job_id", "trial"], ["trials.job_id", "trials.number"]),
        UniqueConstraint("job_id", "path"),
        CheckConstraint("kind IN ('trace', 'export')", name="kind_known"),
    )
