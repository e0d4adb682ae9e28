"""Who may ask: projects, their keys, the requests that are not done twice, and who did what."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, func
from sqlalchemy.orm import Mapped, mapped_column

from api.book.models.base import Base, JsonObject
from api.book.scopes import Scope


class Project(Base):
    __tablename__ = "projects"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class ApiKey(Base):
    """The secret itself is never stored: `secret_sha256` is over a 256-bit random secret, so no salt is needed.

    A rotated key is valid until `expires_at`, and `replaced_by` says which one has taken its name. Keys are not
    deleted: events and the audit log speak of them. `last_used_at` is written at most once a minute.
    """

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    name: Mapped[str]
    secret_sha256: Mapped[bytes]
    scopes: Mapped[list[str]]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    replaced_by: Mapped[str | None] = mapped_column(ForeignKey("api_keys.id"))

    __table_args__ = (
        CheckConstraint(
            f"scopes <@ ARRAY[{', '.join(repr(str(scope)) for scope in Scope)}]::text[] AND cardinality(scopes) > 0",
            name="scopes_known",
        ),
        CheckConstraint("replaced_by IS NULL OR expires_at IS NOT NULL", name="replaced_expires"),
        Index(
            "uq_api_keys_name_in_use", "project_id", "name", unique=True,
            postgresql_where="revoked_at IS NULL AND replaced_by IS NULL",
        ),
        Index("ix_api_keys_project_newest", "project_id", "id"),
    )  # fmt: skip


class AuditEntry(Base):
    """One change and who made it: `key_id` is NULL for the command line. A trigger refuses UPDATE, DELETE, TRUNCATE."""

    __tablename__ = "audit_log"

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    key_id: Mapped[str | None] = mapped_column(ForeignKey("api_keys.id"))
    action: Mapped[str]
    object_id: Mapped[str]
    details: Mapped[JsonObject]
    address: Mapped[str | None]
    request_id: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (
        Index("ix_audit_log_project_newest", "project_id", "id"),
        Index("ix_audit_log_object", "project_id", "object_id", "id"),
    )


class IdempotencyKey(Base):
    """Written in the job's own transaction: either both exist or neither."""

    __tablename__ = "idempotency_keys"

    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    request_sha256: Mapped[bytes]
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
