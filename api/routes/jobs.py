"""`/v1/jobs`: submit, list, read, wait, cancel, pause, resume, profile, efficiency."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import APIRouter, Response
from fastapi.concurrency import run_in_threadpool
from sqlalchemy.orm import Session

from api import advice, reachable, render, render_efficiency, schemas, submission, waiting
from api.auth import Principal
from api.book import audit, control_requests, lifecycle, queries
from api.book.database import Sessions
from api.book.events import act_for
from api.book.models import Job
from api.book.scopes import Scope
from api.book.status import TERMINAL
from api.dataset_facts import Hints
from api.deps import (  # fmt: skip
    JobsReader,
    JobsWriter,
    KeyringOf,
    KnownSecretsOf,
    NotificationsOf,
    ProfilesOf,
    SessionsOf,
    SettingsOf,
    StoreOf,
)
from api.errors import invalid_transition, no_account_yet, not_found
from api.known_secrets import KnownSecrets
from api.links import link
from api.long_polling import Look, answer_when_due, look_at, respond
from api.profiles import Profiles
from api.routes import plans
from api.routes.parameters import After, Key, Limit, Narrow, SpecBody, Waiting, after_id
from api.store import Store
from training_core.contract.spec import JobSpec

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


@router.post(
    "", status_code=202, response_model=schemas.JobAnswer,
    responses={200: {"model": schemas.Validation, "description": "With `validate_only`"}},
)  # fmt: skip
async def submit(
    sessions: SessionsOf, caller: JobsWriter, profiles: ProfilesOf, settings: SettingsOf, store: StoreOf,
    known_secrets: KnownSecretsOf, spec: SpecBody, idempotency_key: Key = None, validate_only: bool = False,
) -> Response:  # fmt: skip
    """Book a training job; 202 with the job and its `Location`.

    `validate_only=true` answers 200 with warnings and the plan, and books nothing.
    """
    if spec.priority > 0:
        caller.require(Scope.JOBS_PRIORITY)
    await run_in_threadpool(submission.check, spec, profiles, settings)
    if validate_only:
        unreadable = await run_in_threadpool(_check_names, sessions, caller, known_secrets, spec)
        plan = await run_in_threadpool(plans.plan, sessions, caller, profiles, spec, Hints())
        warnings = [*advice.warnings_for(spec, profiles), *unreadable, *waiting.warnings_of(plan.queue)]
        answer = schemas.Validation(spec=spec.model_dump(mode="json"), warnings=warnings, plan=plan)
        return Response(answer.model_dump_json(), media_type="application/json")
    return await run_in_threadpool(_submit, sessions, store, caller, profiles, known_secrets, spec, idempotency_key)


def _check_names(sessions: Sessions, caller: Principal, known_secrets: KnownSecrets, spec: JobSpec) -> list[str]:
    """Raises a 422 for a name that is unknown; what it returns are warnings about the place of the data."""
    with sessions() as session:
        known_secrets.check(session, caller.project_id, spec.dataset.credentials)
        submission.check_references(session, caller.project_id, spec)
        return reachable.warnings_of(session, caller.project_id, spec.dataset.uri)


def _submit(
    sessions: Sessions, store: Store, caller: Principal, profiles: Profiles, known_secrets: KnownSecrets,
    spec: JobSpec, key: str | None,
) -> Response:  # fmt: skip
    with sessions.begin() as session:
        job, replayed = submission.submit(session, caller, known_secrets, spec, key)
        if not replayed:
            submission.keep_references(session, store, caller, spec)
        response = respond(look_at(job, render.job(session, job, profiles)), 202)
    response.headers["Location"] = link(f"/v1/jobs/{job.id}")
    if replayed:
        response.headers["Idempotency-Replayed"] = "true"
    return response


@router.get("", response_model=schemas.Page[schemas.JobAnswer])
def list_jobs(
    sessions: SessionsOf,
    caller: JobsReader,
    profiles: ProfilesOf,
    narrow: Narrow,
    limit: Limit = 20,
    after: After = None,
) -> schemas.Page[schemas.JobAnswer]:
    """Jobs of this project, newest first. The cost of a page does not grow with the number of jobs."""
    limit = min(limit, 100)
    with sessions() as session:
        rows = queries.list_jobs(session, caller.project_id, narrow, after=after_id(after), limit=limit)
        data = [render.job(session, row, profiles) for row in rows[:limit]]
    more = len(rows) > limit
    return schemas.Page(data=data, has_more=more, next_cursor=data[-1].id if more else None)


@router.get("/{job_id}", response_model=schemas.JobAnswer)
async def read(
    job_id: str, sessions: SessionsOf, caller: JobsReader, profiles: ProfilesOf, notifications: NotificationsOf,
    keyring: KeyringOf, wait: Waiting,
) -> Response:  # fmt: skip
    """One job. With `wait`, the answer comes when the job changed (or ended), or when the time is over."""

    def look() -> Look:
        with sessions() as session:
            job = queries.job_of(session, caller.project_id, job_id)
            if job is None:
                raise not_found("job")
            return look_at(job, render.job(session, job, profiles))

    return await keyring.during(caller, answer_when_due(look, notifications, job_id, wait))


@router.post("/{job_id}/cancel", status_code=202, response_model=schemas.JobAnswer)
def cancel(job_id: str, sessions: SessionsOf, caller: JobsWriter, profiles: ProfilesOf) -> Response:
    """Ask a job to end. A running one writes a checkpoint first; asking again changes nothing."""
    return _wish(control_requests.cancel, "jobs.cancel", job_id, sessions, caller, profiles)


@router.post("/{job_id}/pause", status_code=202, response_model=schemas.JobAnswer)
def pause(job_id: str, sessions: SessionsOf, caller: JobsWriter, profiles: ProfilesOf) -> Response:
    """Ask a job to give its devices back, after a checkpoint; it is `paused` then, until it is resumed or cancelled."""
    return _wish(control_requests.pause, "jobs.pause", job_id, sessions, caller, profiles)


@router.post("/{job_id}/resume", status_code=202, response_model=schemas.JobAnswer)
def resume(job_id: str, sessions: SessionsOf, caller: JobsWriter, profiles: ProfilesOf) -> Response:
    """Queue a paused job again, from its newest checkpoint; a pause that has not come about is taken back."""
    return _wish(control_requests.resume, "jobs.resume", job_id, sessions, caller, profiles)


@router.post("/{job_id}/profile", status_code=202, response_model=schemas.JobAnswer)
def profile(job_id: str, sessions: SessionsOf, caller: JobsWriter, profiles: ProfilesOf) -> Response:
    """Trace a few steps of a running job with torch.profiler; the trace becomes one of its artifacts."""
    return _wish(control_requests.profile, "jobs.profile", job_id, sessions, caller, profiles)


def _wish(
    wish: Callable[[Session, str], Job], action: str, job_id: str, sessions: Sessions, caller: Principal,
    profiles: Profiles,
) -> Response:  # fmt: skip
    with sessions.begin() as session:
        found = queries.job_of(session, caller.project_id, job_id)
        if found is None:
            raise not_found("job")
        version = found.version
        act_for(session, caller.key_id)
        try:
            job = wish(session, job_id)
        except lifecycle.InvalidTransition as error:
            raise invalid_transition(error) from None
        if job.version != version:  # what was wished before is no change
            audit.record(session, caller, action, job_id)
        session.flush()
        session.refresh(job)
        return respond(look_at(job, render.job(session, job, profiles)), 202)


@router.get(
    "/{job_id}/efficiency", response_model=schemas.EfficiencyAnswer | schemas.SearchEfficiencyAnswer,
    tags=["efficiency"],
)  # fmt: skip
def read_efficiency(job_id: str, sessions: SessionsOf, caller: JobsReader, profiles: ProfilesOf) -> Response:
    """Where the time and the money of a job went, what held it back, and what was predicted.

    Of a search it is the sum over its trials; each trial has an account of its own.
    """
    answer: schemas.Answer | None
    with sessions() as session:
        job = queries.job_of(session, caller.project_id, job_id)
        if job is None:
            raise not_found("job")
        if queries.is_search(job):
            answer = render_efficiency.search_efficiency(session, job)
        else:
            answer = render_efficiency.efficiency(session, job, profiles)
    if answer is None:
        raise no_account_yet(over=job.status in TERMINAL)
    return Response(answer.model_dump_json(), media_type="application/json")
