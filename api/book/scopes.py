"""What an API key may do: its scopes, and the roles that are short names for sets of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from enum import StrEnum


class Scope(StrEnum):
    """`docs/access.md` says of each what it opens."""

    JOBS_READ = "jobs:read"
    JOBS_WRITE = "jobs:write"
    JOBS_PRIORITY = "jobs:priority"
    DATA_READ = "data:read"
    ADMIN = "admin"
    OPERATOR = "operator"


_VIEWER = frozenset({Scope.JOBS_READ, Scope.DATA_READ})

ROLES: Mapping[str, frozenset[Scope]] = {
    "viewer": _VIEWER,
    "submitter": _VIEWER | {Scope.JOBS_WRITE},
    "admin": frozenset({Scope.ADMIN}),
    "operator": frozenset({Scope.ADMIN, Scope.OPERATOR}),
}


def granted(scopes: Iterable[str]) -> frozenset[Scope]:
    """All that these scopes allow: `admin` is everything within its project, and `operator` stands for itself."""
    held = frozenset(Scope(scope) for scope in scopes)
    return held | (frozenset(Scope) - {Scope.OPERATOR}) if Scope.ADMIN in held else held


def beyond(scopes: Collection[str], held: Collection[str]) -> list[Scope]:
    """Those of `scopes` that a key with the scopes `held` cannot hand on, in order."""
    return sorted(granted(scopes) - granted(held))
