"""`/v1/projects`: what the operator of the service makes; each project isolates its jobs, keys and audit log."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Response
from fastapi.concurrency import run_in_threadpool

from api import render_access, schemas
from api.auth import Principal
from api.bodies.door import Json
from api.book import audit, keys
from api.book.database import Sessions
from api.book.scopes import ROLES
from api.deps import Operator, SessionsOf
from api.errors import Code, Problem
from api.key_specs import ProjectSpec
from api.routes.parameters import After, Limit, after_id

router = APIRouter(prefix="/v1/projects", tags=["projects"])

FIRST_KEY = "admin"
ProjectBody = Annotated[ProjectSpec, Depends(Json(ProjectSpec))]


@router.post("", status_code=201, response_model=schemas.NewProjectAnswer)
async def create(sessions: SessionsOf, caller: Operator, spec: ProjectBody) -> Response:
    """Make a project with the key of its first administrator; this answer alone holds the text of that key."""
    return await run_in_threadpool(_create, sessions, caller, spec)


def _create(sessions: Sessions, caller: Principal, spec: ProjectSpec) -> Response:
    with sessions.begin() as session:
        try:
            project = keys.make_project(session, spec.name)
        except keys.NameTaken:
            hint = "GET /v1/projects lists them; its administrators make its keys"
            raise Problem(409, Code.NAME_TAKEN, "There is a project of this name", hint=hint) from None
        key, text = keys.make(session, project.id, FIRST_KEY, ROLES["admin"])
        audit.record(session, caller, "projects.create", project.id, {"name": project.name})
        about = {"name": key.name, "scopes": key.scopes}
        audit.record(session, caller, "api_keys.create", key.id, about, project_id=project.id)
        answer = schemas.NewProjectAnswer(
            **dict(render_access.project(project)), api_key=render_access.new_key(key, text)
        )
    return Response(answer.model_dump_json(), 201, {"Cache-Control": "no-store"}, "application/json")


@router.get("", response_model=schemas.Page[schemas.ProjectAnswer])
def list_projects(
    sessions: SessionsOf, _: Operator, limit: Limit = 20, after: After = None
) -> schemas.Page[schemas.ProjectAnswer]:
    """All projects, newest first."""
    limit = min(limit, 100)
    with sessions() as session:
        rows = keys.list_projects(session, after=after_id(after), limit=limit)
        data = [render_access.project(row) for row in rows[:limit]]
    more = len(rows) > limit
    return schemas.Page(data=data, has_more=more, next_cursor=data[-1].id if more else None)
