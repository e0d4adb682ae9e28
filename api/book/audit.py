"""The audit log: who changed what, when, and from where. Rows are added in the transaction of the change itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from sqlalchemy import select
from sqlalchemy.orm import Session

from api.book.events import act_for
from api.book.ids import new_id
from api.book.models import AuditEntry, JsonObject


class Actor(Protocol):
    """Who changes something: a request through a key (`api.auth.Principal`), or the command line, which has none."""

    @property
    def project_id(self) -> str: ...
    @property
    def key_id(self) -> str | None: ...
    @property
    def address(self) -> str | None: ...
    @property
    def request_id(self) -> str | None: ...


@dataclass(frozen=True)
class CommandLine:
    """Someone with access to the database."""

    project_id: str
    key_id: str | None = None
    address: str | None = None
    request_id: str | None = None


def record(
    session: Session, actor: Actor, action: str, object_id: str, details: JsonObject | None = None,
    *, project_id: str | None = None,
) -> None:  # fmt: skip
    """Note a change, such as `jobs.cancel`, of the object with this id; what is done twice is noted once, by its doer.

    `details` hold what the object's own row does not say later, and never a secret. Events that the session records
    from here on carry the actor's key.
    """
    act_for(session, actor.key_id)
    row = AuditEntry(
        id=new_id("aud"), project_id=project_id or actor.project_id, key_id=actor.key_id, action=action,
        object_id=object_id, details=details or {}, address=actor.address, request_id=actor.request_id,
    )  # fmt: skip
    session.add(row)


@dataclass(frozen=True)
class AuditFilter:
    """Every given part narrows the list; an `action` that ends with a dot stands for all that begin so."""

    action: str | None = None
    key_id: str | None = None
    object_id: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None


def page(
    session: Session, project_id: str, narrow: AuditFilter, *, after: str | None, limit: int
) -> Sequence[AuditEntry]:
    """Newest first; one more than `limit` tells that there is a next page."""
    query = select(AuditEntry).where(AuditEntry.project_id == project_id)
    if narrow.action is not None and narrow.action.endswith("."):
        query = query.where(AuditEntry.action.startswith(narrow.action, autoescape=True))
    elif narrow.action is not None:
        query = query.where(AuditEntry.action == narrow.action)
    if narrow.key_id is not None:
        query = query.where(AuditEntry.key_id == narrow.key_id)
    if narrow.object_id is not None:
        query = query.where(AuditEntry.object_id == narrow.object_id)
    if narrow.created_after is not None:
        query = query.where(AuditEntry.created_at > narrow.created_after)
    if narrow.created_before is not None:
        query = query.where(AuditEntry.created_at < narrow.created_before)
    if after is not None:
        query = query.where(AuditEntry.id < after)
    return session.scalars(query.order_by(AuditEntry.id.desc()).limit(limit + 1)).all()
