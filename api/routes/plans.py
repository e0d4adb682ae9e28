"""`/v1/plans`: what a job would do, take and cost, without booking it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response
from fastapi.concurrency import run_in_threadpool

from api import plans, schemas, submission
from api.auth import Principal
from api.book.database import Sessions
from api.dataset_facts import Hints
from api.deps import JobsReader, KnownSecretsOf, ProfilesOf, SessionsOf, SettingsOf
from api.known_secrets import KnownSecrets
from api.profiles import Profiles
from api.routes.parameters import SpecBody
from training_core.contract.spec import JobSpec

router = APIRouter(prefix="/v1/plans", tags=["plans"])


def _hints(
    train_images: Annotated[int | None, Query(ge=1, le=10**10, description="images that are trained on")] = None,
    classes: Annotated[int | None, Query(ge=2, le=10**6)] = None,
    image_size: Annotated[int | None, Query(ge=8, le=1024, description="side in pixels, once prepared")] = None,
    channels: Annotated[int | None, Query(ge=1, le=4)] = None,
) -> Hints:
    return Hints(train_images, classes, image_size, channels)


Told = Annotated[Hints, Depends(_hints)]


@router.post("", response_model=schemas.PlanAnswer)
async def make(
    sessions: SessionsOf, caller: JobsReader, profiles: ProfilesOf, settings: SettingsOf,
    known_secrets: KnownSecretsOf, spec: SpecBody, hints: Told,
) -> Response:  # fmt: skip
    """Every `auto` of a spec resolved with its reason, and a prediction of time, memory and cost; nothing is booked.

    Facts about the data come from earlier jobs and dataset checks on it, or from the query; `missing` says what is not
    known and how to find it out.
    """
    await run_in_threadpool(submission.check, spec, profiles, settings)
    await run_in_threadpool(_check_names, sessions, caller, known_secrets, spec)
    answer = await run_in_threadpool(plan, sessions, caller, profiles, spec, hints)
    return Response(answer.model_dump_json(), media_type="application/json")


def _check_names(sessions: Sessions, caller: Principal, known_secrets: KnownSecrets, spec: JobSpec) -> None:
    with sessions() as session:
        known_secrets.check(session, caller.project_id, spec.dataset.credentials)
        submission.check_references(session, caller.project_id, spec)


def plan(sessions: Sessions, caller: Principal, profiles: Profiles, spec: JobSpec, hints: Hints) -> schemas.PlanAnswer:
    with sessions() as session:
        return plans.plan_of(session, caller.project_id, spec, hints, profiles)
