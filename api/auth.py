"""API keys as they travel, `ty_<id>_<secret>`, and what a request may do with one.

The id finds the row; the SHA-256 of the secret is all that is stored.
"""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy.orm import Session

from api.book.keys import digest
from api.book.models import ApiKey
from api.book.scopes import Scope, granted
from api.errors import Code, Problem

_KEY = re.compile(r"ty_([0-9A-Z]{26})_([A-Za-z0-9_-]{43})")

_HINTS = {
    "": "Send your API key as `Authorization: Bearer ty_…`",
    "st_": "A stream token opens streams alone; send your API key as `Authorization: Bearer ty_…`",
}


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks: one project, through one key, from one address. `scopes` are all that the key allows."""

    project_id: str
    key_id: str
    scopes: frozenset[Scope] = frozenset()
    address: str | None = None
    request_id: str | None = None

    def require(self, scope: Scope) -> None:
        """Raises a 403 that names the scope, unless the key has it."""
        if scope not in self.scopes:
            raise _forbidden(scope, self.scopes)


@dataclass(frozen=True, slots=True)
class Known:
    """What the book says of a key; times by the database's clock."""

    key_id: str
    project_id: str
    secret_sha256: bytes
    scopes: frozenset[Scope]
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None

    @property
    def ended(self) -> str | None:
        """Why it is not valid any more, in words."""
        if self.revoked_at is not None:
            return "This API key was revoked"
        if self.expires_at is not None and self.expires_at <= datetime.now(UTC):
            return "This API key has expired"
        return None

    def check(self) -> None:
        """Raises a 401 once it was revoked or has expired."""
        if self.ended is not None:
            raise unauthenticated(self.ended)


def parse(header: str | None) -> tuple[str, str]:
    """The key's id and the secret out of an `Authorization` header; raises a 401 for anything but a key."""
    scheme, _, presented = (header or "").partition(" ")
    found = _KEY.fullmatch(presented.strip()) if scheme.lower() == "bearer" else None
    if found is None:
        raise unauthenticated(_HINTS["st_" if presented.startswith("st_") else ""])
    return f"key_{found[1]}", found[2]


def known(session: Session, key_id: str) -> Known | None:
    key = session.get(ApiKey, key_id)
    if key is None:
        return None
    return Known(
        key.id, key.project_id, key.secret_sha256, granted(key.scopes), key.expires_at, key.revoked_at, key.last_used_at
    )


def matches(key: Known | None, secret: str) -> bool:
    """In the same time for a key that does not exist."""
    stored = key.secret_sha256 if key is not None else bytes(32)
    return hmac.compare_digest(stored, digest(secret)) and key is not None


def unauthenticated(hint: str) -> Problem:
    headers = {"WWW-Authenticate": 'Bearer realm="trainyard"'}
    return Problem(401, Code.UNAUTHENTICATED, "A valid API key is needed", hint=hint, headers=headers)


def _forbidden(scope: Scope, held: frozenset[Scope]) -> Problem:
    has = ", ".join(sorted(held)) or "none"
    headers = {"WWW-Authenticate": f'Bearer realm="trainyard", error="insufficient_scope", scope="{scope}"'}
    return Problem(
        403, Code.FORBIDDEN_SCOPE, f"This API key lacks the scope {scope}", headers=headers, required_scope=scope,
        hint=f"It has {has}; an administrator of the project makes one with more (POST /v1/api_keys)",
    )  # fmt: skip
