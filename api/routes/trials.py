"""`/v1/jobs/{id}/trials`: the trials of a search, its best, and what all of them say together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, get_args

from fastapi import APIRouter, Path, Query, Response
from fastapi.responses import StreamingResponse
from sqlalchemy.orm import Session

from api import render_analyses, render_efficiency, render_trials, schemas
from api.auth import Principal
from api.book import queries
from api.book.database import Sessions
from api.book.models import Job, Trial
from api.book.status import TERMINAL, Status
from api.deps import JobsReader, ProfilesOf, SessionsOf
from api.errors import Code, Problem, no_account_yet, not_found
from api.routes.parameters import Limit, Place, bounds, one_of, some_of, unreadable_cursor
from api.search import journal, listing
from api.search.listing import Order, TrialFilter, UnreadableCursor
from training_core.contract.spec import Search
from training_core.contract.spec.search import SamplerName

router = APIRouter(prefix="/v1/jobs/{job_id}/trials", tags=["trials"])

Number = Annotated[int, Path(ge=0, lt=2**31)]
Words = Annotated[list[str] | None, Query(description="one or more, repeated or with commas")]
SORTED_BY = "number, created, value, a metric or the path of a parameter; with - before it the greatest first"
ORIGINS = ("point", *get_args(SamplerName), "retrain")
BOUND = "name:number, repeatable; the name is value, a metric, or the path of a parameter"


@router.get("", response_model=schemas.Page[schemas.TrialAnswer])
def list_trials(
    job_id: str, sessions: SessionsOf, caller: JobsReader, limit: Limit = 20, after: Place = None,
    sort: Annotated[str, Query(max_length=257, description=SORTED_BY)] = "number",
    status: Words = None, origin: Words = None,
    least: Annotated[list[str] | None, Query(alias="min", description=BOUND)] = None,
    most: Annotated[list[str] | None, Query(alias="max", description=BOUND)] = None,
) -> Response:  # fmt: skip
    """Trials by number, or in another order; those without a value come last, whichever the order."""
    limit = min(limit, 100)
    statuses, origins = some_of("status", status, list(Status)), some_of("origin", origin, ORIGINS)
    with sessions() as session:
        job = _job(session, caller, job_id)
        search = render_trials.search_of(job)
        names = listing.names_of(search) if search is not None else []
        order = Order(one_of("sort", sort.removeprefix("-"), [*listing.BY_NUMBER, *names]), sort.startswith("-"))
        narrow = TrialFilter(statuses, origins, bounds("min", least, names), bounds("max", most, names))
        try:
            rows = listing.page(session, job_id, search, narrow, order, after=after, limit=limit)
        except UnreadableCursor:
            raise unreadable_cursor() from None
        data = render_trials.trials(session, job, rows[:limit])
        next_cursor = listing.cursor(search, order, rows[limit - 1]) if len(rows) > limit else None
    return _send(schemas.Page(data=data, has_more=next_cursor is not None, next_cursor=next_cursor))


@router.get("/best", response_model=schemas.TrialDetail)
def read_best(
    job_id: str, sessions: SessionsOf, caller: JobsReader,
    objective: Annotated[str | None, Query(max_length=64, description="one of the metrics, if not the first")] = None,
) -> Response:  # fmt: skip
    """The best trial so far of those that came to their end; its `spec` trains the same again as a job of its own."""
    with sessions() as session:
        job, search = _search(session, caller, job_id)
        metrics: dict[str, bool] = {one.metric: one.maximize for one in search.objectives}
        metric = one_of("objective", objective or next(iter(metrics)), list(metrics))
        trial = listing.best_of(session, job_id, metric, maximize=metrics[metric])
        if trial is None:
            raise _no_value_yet(job)
        return _send(render_trials.detail(session, job, trial))


@router.get("/importance", response_model=schemas.ImportanceAnswer)
def read_importance(job_id: str, sessions: SessionsOf, caller: JobsReader) -> Response:
    """How much each parameter decides whether a trial is among the best, one table for each objective."""
    return _together(render_analyses.importance, job_id, sessions, caller)


@router.get("/pareto", response_model=schemas.ParetoAnswer)
def read_pareto_front(job_id: str, sessions: SessionsOf, caller: JobsReader) -> Response:
    """The trials that no other one beats in all objectives."""
    return _together(render_analyses.pareto_front, job_id, sessions, caller)


@router.get("/parallel_coordinates", response_model=schemas.ParallelCoordinatesAnswer)
def read_parallel_coordinates(job_id: str, sessions: SessionsOf, caller: JobsReader) -> Response:
    """All trials with their parameters and values, as columns."""
    return _together(render_analyses.parallel_coordinates, job_id, sessions, caller)


@router.get("/history", response_model=schemas.HistoryAnswer)
def read_history(job_id: str, sessions: SessionsOf, caller: JobsReader) -> Response:
    """How the best value came about, over the trials and over the device time spent."""
    return _together(render_analyses.best_over_time, job_id, sessions, caller)


@router.get("/journal", response_class=StreamingResponse)
def export_journal(job_id: str, sessions: SessionsOf, caller: JobsReader) -> StreamingResponse:
    """The search as the file of an Optuna journal: `optuna-dashboard search.journal` shows it."""
    with sessions() as session:
        job, search = _search(session, caller, job_id)
        name = job.name or job.id
    headers = {"Content-Disposition": f'attachment; filename="{job_id}.journal"'}
    file = journal.lines(sessions, job_id, name, search)
    return StreamingResponse(file, headers=headers, media_type="application/x-ndjson")


@router.get("/{number}", response_model=schemas.TrialDetail)
def read_trial(job_id: str, number: Number, sessions: SessionsOf, caller: JobsReader) -> Response:
    """One trial, with the whole spec that it trains and each of its attempts."""
    with sessions() as session:
        job = _job(session, caller, job_id)
        return _send(render_trials.detail(session, job, _trial(session, job, number)))


@router.get("/{number}/efficiency", response_model=schemas.EfficiencyAnswer, tags=["efficiency"])
def read_efficiency(
    job_id: str, number: Number, sessions: SessionsOf, caller: JobsReader, profiles: ProfilesOf
) -> Response:
    """Where the time of one trial went, by the account of its newest attempt."""
    with sessions() as session:
        job = _job(session, caller, job_id)
        trial = _trial(session, job, number)
        answer = render_efficiency.trial_efficiency(session, job, trial, profiles)
    if answer is None:
        raise no_account_yet(over=trial.status in TERMINAL)
    return _send(answer)


def _job(session: Session, caller: Principal, job_id: str) -> Job:
    job = queries.job_of(session, caller.project_id, job_id)
    if job is None:
        raise not_found("job")
    return job


def _search(session: Session, caller: Principal, job_id: str) -> tuple[Job, Search]:
    job = _job(session, caller, job_id)
    search = render_trials.search_of(job)
    if search is None:
        hint = "Its one training is described by the job itself, and by trials/0"
        raise Problem(409, Code.NOT_A_SEARCH, "This job trains once and searches for nothing", hint=hint)
    return job, search


def _trial(session: Session, job: Job, number: int) -> Trial:
    trial = listing.trial_of(session, job.id, number)
    if trial is None:
        raise not_found("trial")
    return trial


def _together(
    make: Callable[[Session, Job, Search], schemas.Answer], job_id: str, sessions: Sessions, caller: Principal
) -> Response:
    with sessions() as session:
        answer = make(session, *_search(session, caller, job_id))
    return _send(answer)


def _no_value_yet(job: Job) -> Problem:
    over = job.status in TERMINAL
    hint = "`why` of its trials says how each ended" if over else "The event trial.completed tells when one has"
    return Problem(404, Code.NOT_FOUND, "No trial has come to its end with a value", hint=hint, retryable=not over)


def _send(answer: schemas.Answer) -> Response:
    return Response(answer.model_dump_json(), media_type="application/json")
