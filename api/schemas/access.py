"""Keys, projects and the audit log."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from api.schemas.part import Answer, Instant, JsonObject


class KeyAnswer(Answer):
    """A key without its secret; `prefix` is how its text begins."""

    object: Literal["api_key"] = "api_key"
    id: str
    name: str
    prefix: str
    project_id: str
    scopes: list[str]
    status: str = Field(description="active, expired or revoked")
    created_at: Instant
    expires_at: Instant | None
    revoked_at: Instant | None
    last_used_at: Instant | None = Field(description="as of a minute ago")
    replaced_by: str | None = Field(description="the id of the key that has its name since it was rotated")


class NewKeyAnswer(KeyAnswer):
    """The only answer that holds the key itself."""

    key: str = Field(description="the whole text; it cannot be read again")


class ProjectAnswer(Answer):
    object: Literal["project"] = "project"
    id: str
    name: str
    created_at: Instant


class NewProjectAnswer(ProjectAnswer):
    api_key: NewKeyAnswer


class AuditAnswer(Answer):
    """One change: who did what to which object, when, and from where."""

    object: Literal["audit_entry"] = "audit_entry"
    id: str
    created_at: Instant
    action: str = Field(description="such as jobs.cancel")
    object_id: str
    key_id: str | None = Field(description="null for the command line of whoever reaches the database")
    address: str | None
    request_id: str | None
    details: JsonObject
