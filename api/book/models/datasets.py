"""Uploaded datasets, and the parts of those that come in parts."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, UniqueConstraint, func
from sqlalchemy.orm import Mapped, mapped_column

from api.book.models.base import Base


class Dataset(Base):
    """An upload: `uploading` until `expires_at`, then `ready` or `gone`. `contract.uploads` says where it lies.

    `held_bytes` count against the project's quota until `purged_at`, when the store holds nothing of it any more.
    `form` says how it comes: in one `body`, or in `parts`. `announced_…` is what the client said that it would be.
    `place` is where a training reads it, below the store.
    """

    __tablename__ = "datasets"

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    name: Mapped[str]
    form: Mapped[str]
    state: Mapped[str] = mapped_column(default="uploading")
    held_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    announced_bytes: Mapped[int | None] = mapped_column(BigInteger)
    announced_sha256: Mapped[str | None]
    size_bytes: Mapped[int | None] = mapped_column(BigInteger)
    files: Mapped[int | None]
    sha256: Mapped[str | None]
    place: Mapped[str | None]
    idempotency_key: Mapped[str | None]
    request_sha256: Mapped[bytes | None]
    why_gone: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime | None]
    ready_at: Mapped[datetime | None]
    gone_at: Mapped[datetime | None]
    purged_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint("state IN ('uploading', 'ready', 'gone')", name="state_known"),
        CheckConstraint("form IN ('body', 'parts')", name="form_known"),
        CheckConstraint("held_bytes >= 0", name="held_bytes_not_negative"),
        CheckConstraint("(state = 'uploading') = (expires_at IS NOT NULL)", name="expires_while_uploading"),
        CheckConstraint("(state = 'gone') = (gone_at IS NOT NULL)", name="gone_at_when_gone"),
        CheckConstraint("(state = 'gone') = (why_gone IS NOT NULL)", name="gone_has_a_reason"),
        CheckConstraint("why_gone IN ('deleted', 'aborted', 'expired', 'failed')", name="why_gone_known"),
        CheckConstraint("purged_at IS NULL OR state = 'gone'", name="purged_when_gone"),
        CheckConstraint(
            "state <> 'ready' OR (ready_at IS NOT NULL AND size_bytes IS NOT NULL AND files IS NOT NULL"
            " AND sha256 IS NOT NULL AND place IS NOT NULL)",
            name="ready_is_whole",
        ),
        UniqueConstraint("project_id", "idempotency_key"),
        Index("ix_datasets_held", "project_id", "id", postgresql_where="purged_at IS NULL"),
        Index("ix_datasets_unsettled", "id", postgresql_where="state <> 'ready' AND purged_at IS NULL"),
    )


class DatasetPart(Base):
    """A part that has arrived; `file` is its name in the upload's folder of parts."""

    __tablename__ = "dataset_parts"

    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str]
    file: Mapped[str]
    stored_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (CheckConstraint("number BETWEEN 1 AND 10000", name="number_in_bounds"),)
