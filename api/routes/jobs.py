"""`/v1/jobs`: submit, list, read, wait, cancel."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Annotated, Literal, NamedTuple

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from sse_starlette.sse import AppStatus

from api import render, schemas, submission
from api.auth import Principal
from api.bells import ring
from api.book import lifecycle, queries
from api.book.database import Sessions
from api.book.models import Job
from api.book.status import TERMINAL
from api.deps import BellsOf, Caller, ProfilesOf, SessionsOf, SettingsOf
from api.errors import Code, Problem, invalid_request, not_found
from api.profiles import Profiles
from training_core.spec import JobSpec

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

_SPEC = {"application/json": {"schema": {"$ref": "#/components/schemas/JobSpec"}}}
_BODY = {"requestBody": {"required": True, "content": _SPEC}}
Key = Annotated[
    str | None, Header(min_length=1, max_length=255, description="retries with the same key get the same job")
]


@router.post("", status_code=202, response_model=schemas.JobAnswer, openapi_extra=_BODY)
async def submit(
    request: Request, sessions: SessionsOf, caller: Caller, profiles: ProfilesOf, settings: SettingsOf,
    idempotency_key: Key = None, validate_only: bool = False,
) -> Response:  # fmt: skip
    """Book a training job; 202 with the job and its `Location`. `validate_only=true` answers 200 and books nothing."""
    if "json" not in request.headers.get("content-type", "application/json"):
        raise Problem(415, Code.UNSUPPORTED_MEDIA_TYPE, "Send the spec as application/json")
    spec = submission.parse(await request.body())
    warnings = submission.check(spec, profiles, settings)
    if validate_only:
        answer = schemas.Validation(spec=spec.model_dump(mode="json"), warnings=warnings)
        return JSONResponse(answer.model_dump(mode="json"))
    return await run_in_threadpool(_submit, sessions, caller, profiles, spec, idempotency_key)


def _submit(sessions: Sessions, caller: Principal, profiles: Profiles, spec: JobSpec, key: str | None) -> Response:
    with sessions.begin() as session:
        job, replayed = submission.submit(session, caller, spec, key)
        response = _answer(render.job(session, job, profiles), _etag(job.version), 202)
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    if replayed:
        response.headers["Idempotency-Replayed"] = "true"
    return response


@router.get("", response_model=schemas.Page[schemas.JobAnswer])
def list_jobs(
    sessions: SessionsOf, caller: Caller, profiles: ProfilesOf,
    status: Annotated[list[str] | None, Query(description="one or more, repeated or with commas")] = None,
    label: Annotated[list[str] | None, Query(description="key:value, repeatable")] = None,
    ids: Annotated[str | None, Query(max_length=4000, description="job ids with commas, at most 100")] = None,
    name: Annotated[str | None, Query(max_length=128, description="part of the name")] = None,
    external_id: Annotated[str | None, Query(max_length=128)] = None,
    created_after: datetime | None = None,
    limit: Annotated[int, Query(ge=1)] = 20,
    after: Annotated[str | None, Query(max_length=64, description="`next_cursor` of the page before")] = None,
) -> schemas.Page[schemas.JobAnswer]:  # fmt: skip
    """Jobs of this project, newest first. The cost of a page does not grow with the number of jobs."""
    limit = min(limit, 100)
    narrow = queries.JobFilter(
        statuses=[part for item in status or () for part in item.split(",")],
        labels=dict(_label(item) for item in label or ()),
        ids=ids.split(",")[:100] if ids else (),
        name=name,
        external_id=external_id,
        created_after=created_after,
    )
    with sessions() as session:
        rows = queries.list_jobs(session, caller.project_id, narrow, after, limit)
        data = [render.job(session, row, profiles) for row in rows[:limit]]
    more = len(rows) > limit
    return schemas.Page(data=data, has_more=more, next_cursor=data[-1].id if more else None)


def _label(item: str) -> tuple[str, str]:
    key, separator, value = item.partition(":")
    if not separator:
        fault = {"loc": ("query", "label"), "type": "value_error", "ctx": {"error": "a label filter is key:value"}}
        raise invalid_request([fault])
    return key, value


@router.get("/{job_id}", response_model=schemas.JobAnswer)
async def read(
    job_id: str, sessions: SessionsOf, caller: Caller, profiles: ProfilesOf, bells: BellsOf, settings: SettingsOf,
    wait: Annotated[float, Query(ge=0, le=3600, description="seconds to hold the answer, at most 60")] = 0,
    until: Annotated[Literal["change", "terminal"], Query(description="what the wait is for")] = "change",
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:  # fmt: skip
    """One job. With `wait`, the answer comes when the job changed (or ended), or when the time is over."""
    deadline = asyncio.get_running_loop().time() + min(wait, settings.wait_limit_seconds)

    def look() -> _Look:
        with sessions() as session:
            job = _job(queries.job_of(session, caller.project_id, job_id))
            return _Look(_etag(job.version), job.status in TERMINAL, render.job(session, job, profiles))

    async with bells.listening(job_id) as bell:
        seen = await run_in_threadpool(look)
        known = if_none_match or seen.etag
        while not seen.terminal and not (until == "change" and seen.etag != known) and not AppStatus.should_exit:
            remaining = deadline - asyncio.get_running_loop().time()
            if remaining <= 0:
                break
            await ring(bell, min(remaining, 1.0))
            bell.clear()
            seen = await run_in_threadpool(look)
    answer = _answer(seen.job, seen.etag, 200)
    if seen.etag == if_none_match:
        return Response(status_code=304, headers={name: answer.headers[name] for name in ("etag", "retry-after")})
    return answer


class _Look(NamedTuple):
    etag: str
    terminal: bool
    job: schemas.JobAnswer


@router.post("/{job_id}/cancel", status_code=202, response_model=schemas.JobAnswer)
def cancel(job_id: str, sessions: SessionsOf, caller: Caller, profiles: ProfilesOf) -> Response:
    """Ask a job to end. A running one writes a checkpoint first; asking again changes nothing."""
    with sessions.begin() as session:
        _job(queries.job_of(session, caller.project_id, job_id))
        try:
            job = lifecycle.request_cancel(session, job_id)
        except lifecycle.InvalidTransition as error:
            raise Problem(
                409, Code.INVALID_TRANSITION, str(error).capitalize(), allowed_actions=error.allowed
            ) from None
        session.flush()
        session.refresh(job)
        return _answer(render.job(session, job, profiles), _etag(job.version), 202)


def _job(job: Job | None) -> Job:
    if job is None:
        raise not_found("job")
    return job


def _etag(version: int) -> str:
    return f'W/"v{version}"'


def _answer(job: schemas.JobAnswer, etag: str, status: int) -> Response:
    """The job with its ETag; `Retry-After` says when it is worth asking again."""
    pause_seconds = {"queued": 5, "preparing": 2, "running": 2}.get(job.status, 3600)
    headers = {"ETag": etag, "Retry-After": str(pause_seconds)}
    return Response(job.model_dump_json(), status, headers, "application/json")
