"""`/v1/jobs/{id}/metrics`: curves, columnar, thinned on the server so that spikes and NaN survive."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from api import render, schemas
from api.book import queries, series
from api.book.models import Job
from api.deps import JobsReader, SessionsOf
from api.errors import not_found
from api.routes.parameters import numbers

MOST_TRIALS = 50

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["metrics"])


@router.get("/metrics", response_model=schemas.MetricsAnswer)
def read_metrics(
    job_id: str, sessions: SessionsOf, caller: JobsReader,
    names: Annotated[str | None, Query(max_length=2000, description="series names with commas")] = None,
    trials: Annotated[str | None, Query(max_length=1000, description="numbers with commas, at most 50")] = None,
    points: Annotated[int, Query(ge=3, le=100_000, description="about so many points of each series")] = 1000,
    after: Annotated[int, Query(ge=-1, lt=2**63, description="only steps behind this one")] = -1,
) -> Response:  # fmt: skip
    """Series of the job; a thinned one keeps the lowest, highest, last and every non-finite value of each range.

    Of a search those of the `trials` asked for, or of its best one so far.
    """
    wanted, of = names.split(",") if names else None, numbers("trials", trials, MOST_TRIALS)
    with sessions() as session:
        job = queries.job_of(session, caller.project_id, job_id)
        if job is None:
            raise not_found("job")
        if of is None and queries.is_search(job):
            of = _best_trial(job)
        found = series.read(session, job_id, names=wanted, trials=of, after=after, points=points)
    answer = schemas.MetricsAnswer(
        job_id=job_id,
        series=[render.series(one) for one in found],
        cursor=max((one.steps[-1] for one in found), default=None),
    )
    return Response(answer.model_dump_json(), media_type="application/json")


def _best_trial(job: Job) -> list[int]:
    best = (job.study or {}).get("best")
    return [best["trial"]] if best is not None else []
