"""What the dispatcher's last look at the queue came to."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, func
from sqlalchemy.orm import Mapped, mapped_column

from api.book.models.base import Base


class QueueLane(Base):
    """A lane (`api/book/lanes.py`) of which somebody waits, and why: as it was decided, first at `decided_at`.

    `unserved_since` is since when no worker is there that could ever do it.
    """

    __tablename__ = "queue_lanes"

    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    lane: Mapped[str] = mapped_column(primary_key=True)
    code: Mapped[str]
    message: Mapped[str]
    decided_at: Mapped[datetime] = mapped_column(server_default=func.now())
    unserved_since: Mapped[datetime | None]


class QueueLook(Base):
    """One row: when the last look over the whole queue began."""

    __tablename__ = "queue_looks"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    looked_at: Mapped[datetime]

    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)
