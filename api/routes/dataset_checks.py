"""`/v1/dataset_checks`: the data's part of a job alone. Every status, event and cancel works as it does for jobs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Response
from fastapi.concurrency import run_in_threadpool
from sqlalchemy.orm import Session

from api import render, schemas, submission
from api.auth import Principal
from api.bodies.door import Json
from api.book import audit, control_requests, lifecycle, queries
from api.book.database import Sessions
from api.book.events import act_for
from api.book.models import Job
from api.dataset_check import CheckSpec
from api.deps import (
    JobsReader,
    JobsWriter,
    KeyringOf,
    KnownSecretsOf,
    NotificationsOf,
    ProfilesOf,
    SessionsOf,
    SettingsOf,
)
from api.errors import invalid_transition, not_found
from api.known_secrets import KnownSecrets
from api.links import link
from api.long_polling import Look, answer_when_due, look_at, respond
from api.profiles import Profiles
from api.routes.events import AfterSeq, EventLimit, Types, page_of_events
from api.routes.parameters import After, Key, Limit, Narrow, Waiting, after_id

router = APIRouter(prefix="/v1/dataset_checks", tags=["dataset_checks"])

CheckBody = Annotated[CheckSpec, Depends(Json(CheckSpec))]


@router.post("", status_code=202, response_model=schemas.DatasetCheckAnswer)
async def submit(
    sessions: SessionsOf, caller: JobsWriter, profiles: ProfilesOf, settings: SettingsOf,
    known_secrets: KnownSecretsOf, spec: CheckBody, idempotency_key: Key = None,
) -> Response:  # fmt: skip
    """Read, inspect and prepare a dataset without a training; a job on the same data finds it prepared on that host.

    It runs beside trainings on any worker and takes none of their devices. 202 with the check and its `Location`.
    """
    submission.check_without_training(spec, settings)
    return await run_in_threadpool(_submit, sessions, caller, profiles, known_secrets, spec, idempotency_key)


def _submit(
    sessions: Sessions, caller: Principal, profiles: Profiles, known_secrets: KnownSecrets, spec: CheckSpec,
    key: str | None,
) -> Response:  # fmt: skip
    with sessions.begin() as session:
        check, replayed = submission.submit(session, caller, known_secrets, spec, key)
        response = respond(look_at(check, render.dataset_check(session, check, profiles)), 202)
    response.headers["Location"] = link(f"/v1/dataset_checks/{check.id}")
    if replayed:
        response.headers["Idempotency-Replayed"] = "true"
    return response


@router.get("", response_model=schemas.Page[schemas.DatasetCheckAnswer])
def list_checks(
    sessions: SessionsOf,
    caller: JobsReader,
    profiles: ProfilesOf,
    narrow: Narrow,
    limit: Limit = 20,
    after: After = None,
) -> schemas.Page[schemas.DatasetCheckAnswer]:
    """Dataset checks of this project, newest first."""
    limit = min(limit, 100)
    with sessions() as session:
        rows = queries.list_jobs(session, caller.project_id, narrow, after=after_id(after), limit=limit, work="check")
        data = [render.dataset_check(session, row, profiles) for row in rows[:limit]]
    more = len(rows) > limit
    return schemas.Page(data=data, has_more=more, next_cursor=data[-1].id if more else None)


@router.get("/{check_id}", response_model=schemas.DatasetCheckAnswer)
async def read(
    check_id: str, sessions: SessionsOf, caller: JobsReader, profiles: ProfilesOf, notifications: NotificationsOf,
    keyring: KeyringOf, wait: Waiting,
) -> Response:  # fmt: skip
    """One dataset check. With `wait`, the answer comes when it changed (or ended), or when the time is over."""

    def look() -> Look:
        with sessions() as session:
            check = queries.job_of(session, caller.project_id, check_id, "check")
            if check is None:
                raise not_found("dataset check")
            return look_at(check, render.dataset_check(session, check, profiles))

    return await keyring.during(caller, answer_when_due(look, notifications, check_id, wait))


@router.get("/{check_id}/events", response_model=schemas.Page[schemas.EventAnswer])
def list_events(
    check_id: str, sessions: SessionsOf, caller: JobsReader,
    after: AfterSeq = 0, types: Types = None, limit: EventLimit = 100,
) -> schemas.Page[schemas.EventAnswer]:  # fmt: skip
    """Events of the check in their order, oldest first."""
    with sessions() as session:
        if queries.job_of(session, caller.project_id, check_id, "check") is None:
            raise not_found("dataset check")
        return page_of_events(session, check_id, after, types, limit)


@router.post("/{check_id}/cancel", status_code=202, response_model=schemas.DatasetCheckAnswer)
def cancel(check_id: str, sessions: SessionsOf, caller: JobsWriter, profiles: ProfilesOf) -> Response:
    """Ask a check to end; asking again changes nothing."""
    return _wish(control_requests.cancel, "dataset_checks.cancel", check_id, sessions, caller, profiles)


@router.post("/{check_id}/pause", status_code=409, response_class=Response)
def pause(check_id: str, sessions: SessionsOf, caller: JobsWriter, profiles: ProfilesOf) -> Response:
    """Always refused: a check holds no device that it could give back."""
    hint = "Cancel it, and post it again later: what was prepared until then is kept"
    return _wish(control_requests.pause, "dataset_checks.pause", check_id, sessions, caller, profiles, hint)


def _wish(
    wish: Callable[[Session, str], Job], action: str, check_id: str, sessions: Sessions, caller: Principal,
    profiles: Profiles, hint: str | None = None,
) -> Response:  # fmt: skip
    with sessions.begin() as session:
        found = queries.job_of(session, caller.project_id, check_id, "check")
        if found is None:
            raise not_found("dataset check")
        version = found.version
        act_for(session, caller.key_id)
        try:
            check = wish(session, check_id)
        except lifecycle.InvalidTransition as error:
            raise invalid_transition(error, hint) from None
        if check.version != version:  # what was wished before is no change
            audit.record(session, caller, action, check_id)
        session.flush()
        session.refresh(check)
        return respond(look_at(check, render.dataset_check(session, check, profiles)), 202)
