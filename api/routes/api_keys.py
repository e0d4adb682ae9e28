"""`/v1/api_keys`: make, list, rotate and revoke the keys of a project."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import AwareDatetime
from sqlalchemy.orm import Session

from api import render_access, schemas
from api.auth import Principal
from api.bodies.door import Json
from api.book import audit, keys
from api.book.database import Sessions
from api.book.models import ApiKey
from api.book.scopes import beyond
from api.deps import Administrator, Caller, KeyringOf, SessionsOf
from api.errors import Code, Problem, invalid_request, not_found
from api.key_specs import KeySpec, key_faults
from api.links import link
from api.routes.parameters import After, Limit, after_id

router = APIRouter(prefix="/v1/api_keys", tags=["api_keys"])

KeyBody = Annotated[KeySpec, Depends(Json(KeySpec, key_faults))]
Overlap = Annotated[int, Query(ge=0, le=90 * 86400, description="how long the old key is valid")]


@router.post("", status_code=201, response_model=schemas.NewKeyAnswer)
async def create(sessions: SessionsOf, caller: Administrator, spec: KeyBody) -> Response:
    """Make a key with no more scopes than the caller has; this answer alone holds its text."""
    check_grant(caller, spec.asked)
    return await run_in_threadpool(_create, sessions, caller, spec)


def _create(sessions: Sessions, caller: Principal, spec: KeySpec) -> Response:
    with sessions.begin() as session:
        try:
            key, text = keys.make(session, caller.project_id, spec.name, spec.asked, spec.expires_at)
        except keys.NameTaken:
            hint = "It stays as it is: take another name, or rotate or revoke the key that has this one"
            raise Problem(409, Code.NAME_TAKEN, "A key of this project has this name", hint=hint) from None
        audit.record(session, caller, "api_keys.create", key.id, {"name": key.name, "scopes": key.scopes})
        return _shown_once(render_access.new_key(key, text))


@router.get("", response_model=schemas.Page[schemas.KeyAnswer])
def list_keys(
    sessions: SessionsOf, caller: Administrator, limit: Limit = 20, after: After = None
) -> schemas.Page[schemas.KeyAnswer]:
    """Keys of this project, newest first, those that ended too."""
    limit = min(limit, 100)
    with sessions() as session:
        rows = keys.list_keys(session, caller.project_id, after=after_id(after), limit=limit)
        data = [render_access.key(row) for row in rows[:limit]]
    more = len(rows) > limit
    return schemas.Page(data=data, has_more=more, next_cursor=data[-1].id if more else None)


@router.get("/current", response_model=schemas.KeyAnswer)
def read_current(sessions: SessionsOf, caller: Caller) -> schemas.KeyAnswer:
    """The key of this very request, whatever its scopes are."""
    with sessions() as session:
        return render_access.key(_key(session, caller, caller.key_id))


@router.get("/{key_id}", response_model=schemas.KeyAnswer)
def read(key_id: str, sessions: SessionsOf, caller: Administrator) -> schemas.KeyAnswer:
    """One key, without its secret."""
    with sessions() as session:
        return render_access.key(_key(session, caller, key_id))


@router.post("/{key_id}/rotate", status_code=201, response_model=schemas.NewKeyAnswer)
def rotate(
    key_id: str, sessions: SessionsOf, caller: Administrator, keyring: KeyringOf, overlap_seconds: Overlap = 86400,
    expires_at: Annotated[AwareDatetime | None, Query(description="when the new key expires, if ever")] = None,
) -> Response:  # fmt: skip
    """Make a key of the same name and scopes; the old one is valid for the overlap, or until it expires anyway."""
    now = datetime.now(UTC)
    if expires_at is not None and expires_at <= now:
        error = {"error": "this time is over"}
        raise invalid_request([{"type": "value_error", "loc": ("query", "expires_at"), "ctx": error}])
    with sessions.begin() as session:
        old = _key(session, caller, key_id)
        check_grant(caller, old.scopes)
        try:
            new, text = keys.rotate(session, old, now + timedelta(seconds=overlap_seconds), expires_at)
        except keys.NotInUse:
            hint = "Rotate the key that has its name now, or make a new one"
            raise Problem(409, Code.KEY_ENDED, "This key was revoked or replaced", hint=hint) from None
        audit.record(session, caller, "api_keys.rotate", old.id, {"replaced_by": new.id})
        response = _shown_once(render_access.new_key(new, text))
    keyring.forget(key_id)
    return response


@router.post("/{key_id}/revoke", response_model=schemas.KeyAnswer)
def revoke(key_id: str, sessions: SessionsOf, caller: Administrator, keyring: KeyringOf) -> schemas.KeyAnswer:
    """End a key now, and the streams that run with it; asking again changes nothing."""
    with sessions.begin() as session:
        key = _key(session, caller, key_id)
        check_grant(caller, key.scopes)
        if keys.revoke(session, key):
            audit.record(session, caller, "api_keys.revoke", key.id)
        answer = render_access.key(key)
    keyring.forget(key_id)
    return answer


def check_grant(caller: Principal, scopes: Collection[str]) -> None:
    """Raises a 403 for scopes that the caller lacks: a key neither hands them on, nor changes one that has them."""
    for scope in beyond(scopes, caller.scopes):
        caller.require(scope)


def _key(session: Session, caller: Principal, key_id: str) -> ApiKey:
    key = keys.key_of(session, caller.project_id, key_id)
    if key is None:
        raise not_found("API key")
    return key


def _shown_once(answer: schemas.NewKeyAnswer) -> Response:
    headers = {"Cache-Control": "no-store", "Location": link(f"/v1/api_keys/{answer.id}")}
    return Response(answer.model_dump_json(), 201, headers, "application/json")
