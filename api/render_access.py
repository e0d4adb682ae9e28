"""Rows of keys, projects and the audit log as answers."""

from __future__ import annotations

from datetime import UTC, datetime

from api import schemas
from api.book import keys
from api.book.models import ApiKey, AuditEntry, Project


def key(row: ApiKey) -> schemas.KeyAnswer:
    return schemas.KeyAnswer(
        id=row.id,
        name=row.name,
        prefix=keys.prefix(row.id),
        project_id=row.project_id,
        scopes=row.scopes,
        status=_status(row),
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        last_used_at=row.last_used_at,
        replaced_by=row.replaced_by,
    )


def new_key(row: ApiKey, text: str) -> schemas.NewKeyAnswer:
    return schemas.NewKeyAnswer(**dict(key(row)), key=text)


def project(row: Project) -> schemas.ProjectAnswer:
    return schemas.ProjectAnswer(id=row.id, name=row.name, created_at=row.created_at)


def audit_entry(row: AuditEntry) -> schemas.AuditAnswer:
    return schemas.AuditAnswer(
        id=row.id,
        created_at=row.created_at,
        action=row.action,
        object_id=row.object_id,
        key_id=row.key_id,
        address=row.address,
        request_id=row.request_id,
        details=row.details,
    )


def _status(row: ApiKey) -> str:
    if row.revoked_at is not None:
        return "revoked"
    return "expired" if row.expires_at is not None and row.expires_at <= datetime.now(UTC) else "active"
