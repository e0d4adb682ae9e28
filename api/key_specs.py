"""What `POST /v1/api_keys` and `POST /v1/projects` take."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, ConfigDict, Field, StringConstraints

from api.book.scopes import ROLES, Scope
from training_core.contract.spec import Part

AccessName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]


class KeySpec(Part):
    """A key of the caller's own project: with a role, or with scopes by name."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "backend", "scopes": ["jobs:read", "jobs:write", "data:read"]}]}
    )

    name: AccessName
    role: Literal["viewer", "submitter", "admin", "operator"] | None = None
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=len(Scope))] | None = None
    expires_at: AwareDatetime | None = None

    @property
    def asked(self) -> list[Scope]:
        """The scopes, whichever way they were asked for, in order."""
        return sorted(ROLES[self.role] if self.role is not None else set(self.scopes or ()))


class ProjectSpec(Part):
    """A project; it comes with the key of its first administrator."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "pets"}]})

    name: AccessName


def key_faults(spec: KeySpec) -> Iterator[dict[str, Any]]:
    """What the fields cannot know of each other, and of the time."""
    if (spec.role is None) == (spec.scopes is None):
        yield _fault("role", "give either a role or scopes")
    if spec.expires_at is not None and spec.expires_at <= datetime.now(UTC):
        yield _fault("expires_at", "this time is over")


def _fault(field: str, error: str) -> dict[str, Any]:
    return {"type": "value_error", "loc": ("body", field), "ctx": {"error": error}}
