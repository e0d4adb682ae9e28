"""`/data_report` of jobs and of dataset checks: what inspection found in the data, and what was left out of it."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query
from fastapi.responses import Response, StreamingResponse

from api.auth import Principal
from api.book import queries
from api.book.database import Sessions
from api.book.status import TERMINAL
from api.deps import Caller, SessionsOf, StoreOf
from api.errors import Code, Problem, not_found
from api.store import Store, send
from training_core.spec import Work

router = APIRouter(prefix="/v1", tags=["data"])

REPORT_FILE = "data_report.json"
REMOVED_FILE = "removed.jsonl"

Thumbnails = Annotated[bool, Query(description="false leaves the pictures out, which makes the report small")]
Known = Annotated[str | None, Header(alias="If-None-Match", max_length=1000)]
Range = Annotated[str | None, Header(alias="Range", max_length=100)]
IfRange = Annotated[str | None, Header(alias="If-Range", max_length=100)]


@router.get("/jobs/{job_id}/data_report", response_class=Response)
def report_of_job(
    job_id: str, sessions: SessionsOf, caller: Caller, store: StoreOf, thumbnails: Thumbnails = True,
    if_none_match: Known = None,
) -> Response:  # fmt: skip
    """The report on the data that the job trains on, or that it failed for; there from the event `data.report` on."""
    return _report(store, _folder(sessions, caller, job_id, "train"), if_none_match, thumbnails=thumbnails)


@router.get("/dataset_checks/{check_id}/data_report", response_class=Response)
def report_of_check(
    check_id: str, sessions: SessionsOf, caller: Caller, store: StoreOf, thumbnails: Thumbnails = True,
    if_none_match: Known = None,
) -> Response:  # fmt: skip
    """The report on the data: counts, class balance, and each finding with its worst examples."""
    return _report(store, _folder(sessions, caller, check_id, "check"), if_none_match, thumbnails=thumbnails)


@router.get("/jobs/{job_id}/data_report/removed", response_class=StreamingResponse)
def removed_by_job(
    job_id: str, sessions: SessionsOf, caller: Caller, store: StoreOf, if_none_match: Known = None,
    range_header: Range = None, if_range: IfRange = None,
) -> Response:  # fmt: skip
    """Everything that was left out, one JSON object a line with its reason; a `Range` resumes a broken download."""
    return _removed(store, _folder(sessions, caller, job_id, "train"), if_none_match, range_header, if_range)


@router.get("/dataset_checks/{check_id}/data_report/removed", response_class=StreamingResponse)
def removed_by_check(
    check_id: str, sessions: SessionsOf, caller: Caller, store: StoreOf, if_none_match: Known = None,
    range_header: Range = None, if_range: IfRange = None,
) -> Response:  # fmt: skip
    """Everything that a job on this data would leave out, one JSON object a line with its reason."""
    return _removed(store, _folder(sessions, caller, check_id, "check"), if_none_match, range_header, if_range)


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


def _report(store: Store, folder: str, if_none_match: str | None, *, thumbnails: bool) -> Response:
    headers = {"ETag": store.tag(folder, REPORT_FILE), "Cache-Control": "private, no-cache"}
    if _is_known(headers["ETag"], if_none_match):
        return Response(status_code=304, headers=headers)
    file = store.open(folder, REPORT_FILE)
    if thumbnails:
        return send(file, file.seek(0, 2), "application/json", headers=headers)
    with file:
        small = _without_thumbnails(json.load(file))
    return Response(json.dumps(small, ensure_ascii=False), 200, headers, "application/json")


def _without_thumbnails(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_thumbnails(inner) for name, inner in value.items() if name != "thumbnail"}
    return [_without_thumbnails(inner) for inner in value] if isinstance(value, list) else value


def _removed(
    store: Store, folder: str, if_none_match: str | None, range_header: str | None, if_range: str | None
) -> Response:
    headers = {"ETag": store.tag(folder, REMOVED_FILE), "Cache-Control": "private, no-cache"}
    if _is_known(headers["ETag"], if_none_match):
        return Response(status_code=304, headers=headers)
    if if_range is not None and if_range != headers["ETag"]:
        range_header = None  # the client holds a part of another list
    file = store.open(folder, REMOVED_FILE)
    return send(file, file.seek(0, 2), "application/x-ndjson", range_header=range_header, headers=headers)


def _is_known(tag: str, if_none_match: str | None) -> bool:
    known = [one.strip().removeprefix("W/") for one in (if_none_match or "").split(",")]
    return tag in known or "*" in known
