"""`/v1/audit`: who changed what in this project."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from pydantic import AwareDatetime

from api import render_access, schemas
from api.book import audit
from api.book.audit import AuditFilter
from api.deps import Administrator, SessionsOf
from api.routes.parameters import After, Limit, after_id

router = APIRouter(prefix="/v1/audit", tags=["audit"])


def _filter(
    action: Annotated[
        str | None, Query(max_length=64, description="jobs.cancel, or jobs. for all that begin so")
    ] = None,
    key_id: Annotated[str | None, Query(max_length=64, description="of the key that did it")] = None,
    object_id: Annotated[str | None, Query(max_length=128, description="of the job, key … that was changed")] = None,
    created_after: AwareDatetime | None = None,
    created_before: AwareDatetime | None = None,
) -> AuditFilter:
    return AuditFilter(action, key_id, object_id, created_after, created_before)


@router.get("", response_model=schemas.Page[schemas.AuditAnswer])
def list_entries(
    sessions: SessionsOf, caller: Administrator, narrow: Annotated[AuditFilter, Depends(_filter)], limit: Limit = 20,
    after: After = None,
) -> schemas.Page[schemas.AuditAnswer]:  # fmt: skip
    """Every change in this project, newest first; nothing in this list is ever changed or taken out."""
    limit = min(limit, 100)
    with sessions() as session:
        rows = audit.page(session, caller.project_id, narrow, after=after_id(after), limit=limit)
        data = [render_access.audit_entry(row) for row in rows[:limit]]
    more = len(rows) > limit
    return schemas.Page(data=data, has_more=more, next_cursor=data[-1].id if more else None)
