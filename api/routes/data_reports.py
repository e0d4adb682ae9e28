"""`/data_report` of jobs and of dataset checks: what inspection found in the data, and what was left out of it."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import Response, StreamingResponse

from api.auth import Principal
from api.book import queries
from api.book.database import Sessions
from api.book.status import TERMINAL
from api.deps import DataReader, SessionsOf, StoreOf
from api.downloads import Asked, Conditions, download, send_bytes
from api.errors import Code, Problem, not_found
from api.store import Store
from training_core.contract.spec import Work

router = APIRouter(prefix="/v1", tags=["data_reports"])

REPORT_FILE = "data_report.json"
REMOVED_FILE = "removed.jsonl"
DIFFICULTY_FILE = "difficulty.csv"

Thumbnails = Annotated[bool, Query(description="false leaves the pictures out, which makes the report small")]


@router.head("/jobs/{job_id}/data_report", include_in_schema=False)
@router.get("/jobs/{job_id}/data_report", response_class=Response)
def read_of_job(
    job_id: str, sessions: SessionsOf, caller: DataReader, store: StoreOf, asked: Conditions,
    thumbnails: Thumbnails = True,
) -> Response:  # fmt: skip
    """The report on the data that the job trains on, or that it failed for; there from the event `data.report` on."""
    return _report(store, _folder(sessions, caller, job_id, "train"), asked, thumbnails=thumbnails)


@router.head("/dataset_checks/{check_id}/data_report", include_in_schema=False)
@router.get("/dataset_checks/{check_id}/data_report", response_class=Response)
def read_of_check(
    check_id: str, sessions: SessionsOf, caller: DataReader, store: StoreOf, asked: Conditions,
    thumbnails: Thumbnails = True,
) -> Response:  # fmt: skip
    """The report on the data: counts, class balance, and each finding with its worst examples."""
    return _report(store, _folder(sessions, caller, check_id, "check"), asked, thumbnails=thumbnails)


@router.head("/jobs/{job_id}/data_report/removed", include_in_schema=False)
@router.get("/jobs/{job_id}/data_report/removed", response_class=StreamingResponse)
def removed_by_job(
    job_id: str, sessions: SessionsOf, caller: DataReader, store: StoreOf, asked: Conditions
) -> Response:
    """Everything that was left out, one JSON object a line with its reason; a `Range` resumes a broken download."""
    return _removed(store, _folder(sessions, caller, job_id, "train"), asked)


@router.head("/dataset_checks/{check_id}/data_report/removed", include_in_schema=False)
@router.get("/dataset_checks/{check_id}/data_report/removed", response_class=StreamingResponse)
def removed_by_check(
    check_id: str, sessions: SessionsOf, caller: DataReader, store: StoreOf, asked: Conditions
) -> Response:
    """Everything that a job on this data would leave out, one JSON object a line with its reason."""
    return _removed(store, _folder(sessions, caller, check_id, "check"), asked)


@router.head("/jobs/{job_id}/data_report/difficulty", include_in_schema=False)
@router.get("/jobs/{job_id}/data_report/difficulty", response_class=StreamingResponse)
def difficulty_of_job(
    job_id: str, sessions: SessionsOf, caller: DataReader, store: StoreOf, asked: Conditions
) -> Response:
    """How hard each image was, by `dataset.label_check`, as a manifest in CSV; 404 before the check and without it."""
    return download(store, asked, _folder(sessions, caller, job_id, "train"), DIFFICULTY_FILE, "text/csv")


def _folder(sessions: Sessions, caller: Principal, job_id: str, work: Work) -> str:
    """Where the report lies in the store; raises a 404 that says what to wait for while there is none."""
    with sessions() as session:
        job = queries.job_of(session, caller.project_id, job_id, work)
    if job is None:
        raise not_found("job" if work == "train" else "dataset check")
    if job.data_report is not None:
        return str(job.data_report["path"])
    if job.status in TERMINAL:
        hint = "It ended before its data had been inspected; `reason` and `error` say why"
    else:
        hint = "It is written once the data was inspected; the event data.report tells when"
    raise Problem(404, Code.NOT_FOUND, "There is no data report yet", hint=hint, retryable=job.status not in TERMINAL)


def _report(store: Store, folder: str, asked: Asked, *, thumbnails: bool) -> Response:
    if thumbnails:
        return download(store, asked, folder, REPORT_FILE, "application/json")
    with store.open(folder, REPORT_FILE) as file:
        small = _without_thumbnails(json.load(file))
    return send_bytes(json.dumps(small, ensure_ascii=False).encode(), asked, "application/json")


def _without_thumbnails(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_thumbnails(inner) for name, inner in value.items() if name != "thumbnail"}
    return [_without_thumbnails(inner) for inner in value] if isinstance(value, list) else value


def _removed(store: Store, folder: str, asked: Asked) -> Response:
    return download(store, asked, folder, REMOVED_FILE, "application/x-ndjson")
