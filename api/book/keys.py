"""The only writer of projects and API keys. Every function takes the caller's session and never commits."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection, Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from api.book.events import KEYS_CHANNEL, ring
from api.book.ids import new_id
from api.book.locks import now
from api.book.models import ApiKey, Project


class NameTaken(Exception):
    """Another key of the project, or another project, has this name."""


def make_project(session: Session, name: str) -> Project:
    """Raises `NameTaken`."""
    made = insert(Project).values(id=new_id("prj"), name=name).on_conflict_do_nothing().returning(Project)
    project = session.scalars(made).one_or_none()
    if project is None:
        raise NameTaken
    return project


def project_named(session: Session, name: str) -> Project | None:
    return session.scalars(select(Project).where(Project.name == name)).one_or_none()


def list_projects(session: Session, *, after: str | None, limit: int) -> Sequence[Project]:
    """Newest first; one more than `limit` tells that there is a next page."""
    query = select(Project).order_by(Project.id.desc()).limit(limit + 1)
    return session.scalars(query if after is None else query.where(Project.id < after)).all()


def make(
    session: Session, project_id: str, name: str, scopes: Collection[str], expires_at: datetime | None = None
) -> tuple[ApiKey, str]:
    """A new key and its text, which is shown once and stored nowhere; raises `NameTaken`."""
    secret = secrets.token_urlsafe(32)
    row = {"id": new_id("key"), "project_id": project_id, "name": name, "secret_sha256": digest(secret)}
    made = insert(ApiKey).values(**row, scopes=sorted(scopes), expires_at=expires_at).on_conflict_do_nothing()
    key = session.scalars(made.returning(ApiKey)).one_or_none()
    if key is None:
        raise NameTaken
    return key, f"{prefix(key.id)}_{secret}"


def revoke(session: Session, key: ApiKey) -> bool:
    """End the key now; False when it had ended by revocation already."""
    session.refresh(key, with_for_update=True)
    if key.revoked_at is not None:
        return False
    key.revoked_at = now(session)
    ring(session, KEYS_CHANNEL, key.id)
    return True


class NotInUse(Exception):
    """A key that was revoked, or that another one has replaced, has no successor to be made."""


def rotate(session: Session, key: ApiKey, valid_until: datetime, expires_at: datetime | None) -> tuple[ApiKey, str]:
    """A new key of the same name and scopes, and its text; the old one is valid until `valid_until` at the latest.

    Raises `NotInUse`.
    """
    session.refresh(key, with_for_update=True)
    if key.revoked_at is not None or key.replaced_by is not None:
        raise NotInUse
    secret = secrets.token_urlsafe(32)
    new = ApiKey(
        id=new_id("key"), project_id=key.project_id, name=key.name, secret_sha256=digest(secret), scopes=key.scopes,
        expires_at=expires_at, replaced_by=None, revoked_at=None, last_used_at=None,
    )  # fmt: skip
    key.expires_at = min(valid_until, key.expires_at or valid_until)
    # The name has one owner at a time: the old key points to itself until the new one exists.
    key.replaced_by = key.id
    session.flush()
    session.add(new)
    session.flush()
    key.replaced_by = new.id
    ring(session, KEYS_CHANNEL, key.id)
    session.flush()
    session.refresh(new)
    return new, f"{prefix(new.id)}_{secret}"


def key_of(session: Session, project_id: str, key_id: str) -> ApiKey | None:
    return session.scalars(select(ApiKey).where(ApiKey.id == key_id, ApiKey.project_id == project_id)).one_or_none()


def key_named(session: Session, project_id: str, name: str) -> ApiKey | None:
    """The one that has this name now."""
    in_use = (ApiKey.revoked_at.is_(None), ApiKey.replaced_by.is_(None))
    return session.scalars(select(ApiKey).where(ApiKey.project_id == project_id, ApiKey.name == name, *in_use)).first()


def list_keys(session: Session, project_id: str, *, after: str | None, limit: int) -> Sequence[ApiKey]:
    """Newest first, those that ended too; one more than `limit` tells that there is a next page."""
    query = select(ApiKey).where(ApiKey.project_id == project_id).order_by(ApiKey.id.desc()).limit(limit + 1)
    return session.scalars(query if after is None else query.where(ApiKey.id < after)).all()


def digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def prefix(key_id: str) -> str:
    """The part of a key's text that is no secret."""
    return f"ty_{key_id.removeprefix('key_')}"
