"""API keys: `ty_<id>_<secret>`; the id finds the row, the SHA-256 of the secret is all that is stored."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from api.book.ids import new_id
from api.book.models import ApiKey, Project
from api.errors import Code, Problem

_KEY = re.compile(r"ty_([0-9A-Z]{26})_([A-Za-z0-9_-]{43})")


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks: one project, through one key."""

    project_id: str
    key_id: str


def create_key(session: Session, project_name: str, key_name: str) -> str:
    """A new key of the project (made when there is none of that name); the text is shown once and never stored.

    A key of the same name is revoked, which is how a key is rotated.
    """
    project = session.scalars(select(Project).where(Project.name == project_name)).one_or_none()
    if project is None:
        project = Project(id=new_id("prj"), name=project_name)
        session.add(project)
        session.flush()
    session.query(ApiKey).where(ApiKey.project_id == project.id, ApiKey.name == key_name).delete()
    secret = secrets.token_urlsafe(32)
    identity = new_id("key")
    session.add(ApiKey(id=identity, project_id=project.id, name=key_name, secret_sha256=_digest(secret)))
    return f"ty_{identity.removeprefix('key_')}_{secret}"


def authenticate(session: Session, header: str | None) -> Principal:
    """The principal of an `Authorization: Bearer ty_…` header; raises a 401 problem otherwise."""
    scheme, _, presented = (header or "").partition(" ")
    found = _KEY.fullmatch(presented.strip()) if scheme.lower() == "bearer" else None
    if found is None:
        raise _unauthenticated("Send your API key as `Authorization: Bearer ty_…`")
    key = session.get(ApiKey, f"key_{found[1]}")
    stored = key.secret_sha256 if key is not None else bytes(32)
    if not hmac.compare_digest(stored, _digest(found[2])) or key is None or key.revoked_at is not None:
        raise _unauthenticated("This API key is not known, or was revoked")
    return Principal(key.project_id, key.id)


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _unauthenticated(hint: str) -> Problem:
    headers = {"WWW-Authenticate": 'Bearer realm="trainyard"'}
    return Problem(401, Code.UNAUTHENTICATED, "A valid API key is needed", hint=hint, headers=headers)
