"""The workers, and what was measured on their hosts."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, func
from sqlalchemy.orm import Mapped, mapped_column

from api.book.models.base import Base, JsonObject


class Probe(Base):
    """The newest measurements for one key of the planner (`training_core.planner.table`), whichever job made them."""

    __tablename__ = "probes"

    key: Mapped[str] = mapped_column(primary_key=True)
    device_name: Mapped[str]
    table: Mapped[JsonObject]
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Worker(Base):
    """A host's Celery worker as last heard; `last_seen_at` is the database's time of the last new beat."""

    __tablename__ = "workers"

    name: Mapped[str] = mapped_column(primary_key=True)
    incarnation: Mapped[str]
    beat: Mapped[int] = mapped_column(BigInteger)
    host: Mapped[str]
    device: Mapped[str]
    device_name: Mapped[str]
    slots: Mapped[int]
    cores: Mapped[int]
    memory_bytes: Mapped[int] = mapped_column(BigInteger)
    device_memory_bytes: Mapped[int] = mapped_column(BigInteger, server_default="0")
    cpu_features: Mapped[list[str]] = mapped_column(server_default="{}")
    draining: Mapped[bool]
    attempts: Mapped[list[str]]
    version: Mapped[str]
    readable: Mapped[JsonObject] = mapped_column(server_default="{}")
    status: Mapped[str]
    first_seen_at: Mapped[datetime] = mapped_column(server_default=func.now())
    last_seen_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (CheckConstraint("status IN ('online', 'suspected', 'lost')", name="status_known"),)
