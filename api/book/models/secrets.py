"""Secrets of projects, sealed."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, func
from sqlalchemy.orm import Mapped, mapped_column

from api.book.models.base import Base


class Secret(Base):
    """`sealed` is bound to the project and the name (`contract.sealing`); the book holds no key to open it.

    `version` counts the values that it had.
    """

    __tablename__ = "secrets"

    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    sealed: Mapped[bytes]
    fingerprint: Mapped[str]
    version: Mapped[int] = mapped_column(default=1)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (
        CheckConstraint("name ~ '^[a-z0-9][a-z0-9-]{0,62}$' AND name <> 'store'", name="name_is_free"),
        CheckConstraint("kind IN ('access_key', 'token', 'options', 'anonymous')", name="kind_known"),
        CheckConstraint("version >= 1", name="version_counts_from_one"),
        CheckConstraint("octet_length(sealed) > 33", name="sealed_not_empty"),
    )
