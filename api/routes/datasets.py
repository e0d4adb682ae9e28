"""`/v1/datasets`: uploads, in one body or in parts; a spec takes the id of one that is ready as `dataset.uri`."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from api import render_datasets, schemas
from api.auth import Principal
from api.book import datasets
from api.book.database import Sessions
from api.book.models import Dataset
from api.deps import DataReader, JobsReader, JobsWriter, SessionsOf, SettingsOf, StoreOf
from api.downloads import Conditions, download
from api.errors import not_found
from api.routes.parameters import After, Key, Limit
from api.uploads import digest, kinds, parts, whole
from api.uploads.body import Body
from api.uploads.holding import Depot, give_up, in_progress
from api.uploads.parts import UploadSpec
from api.uploads.vault import Vault
from training_core.contract.uploads import LISTING, folder_of

router = APIRouter(prefix="/v1/datasets", tags=["datasets"])

Name = Annotated[str | None, Query(max_length=200, description="of the dataset; of a raw body also its file's name")]
Sha256 = Annotated[str | None, Query(max_length=100, description="of the body, in hexadecimal digits")]
ContentDigest = Annotated[str | None, Header(max_length=1000, description="`sha-256=:…:` (RFC 9530)")]
Number = Annotated[int, Path(ge=1, le=10_000, description="parts are put together in the order of their numbers")]


@router.post(
    "",
    status_code=201,
    response_model=schemas.DatasetAnswer,
    openapi_extra=kinds.bodies(UploadSpec.model_json_schema()),
)
async def upload(
    request: Request, sessions: SessionsOf, caller: JobsWriter, settings: SettingsOf, store: StoreOf,
    name: Name = None, sha256: Sha256 = None, content_digest: ContentDigest = None, idempotency_key: Key = None,
) -> Response:  # fmt: skip
    """Upload a dataset: a form of files (folders are in their filenames), one archive or table as the body, or with a
    JSON body an upload in parts.

    201 with the dataset and its `Location`: `ready`, or `uploading` until all parts have come and it is completed.
    """
    kind = kinds.kind_of(request.headers.get("content-type", ""))
    depot = Depot(sessions, settings, Vault(store))
    if kind == "json":
        spec = await request.app.state.bodies.read(await request.body(), UploadSpec)
        row, replayed = await run_in_threadpool(parts.begin, depot, caller, spec, idempotency_key)
        return await run_in_threadpool(_answer, sessions, caller, row.id, 201, replayed)
    order = whole.Order(
        caller=caller,
        name=None if name is None else kinds.checked_name(name),
        form=request.headers["content-type"] if kind == "form" else None,
        file=None if kind == "form" else kinds.file_name(name, kind),
        sha256=digest.told_sha256(sha256, content_digest) if kind != "form" else None,
        key=idempotency_key,
    )
    body = Body(request, settings.upload_limit_bytes, settings.upload_stall_seconds)
    dataset_id, replayed = await whole.receive(body, order, depot)
    return await run_in_threadpool(_answer, sessions, caller, dataset_id, 201, replayed)


@router.get("", response_model=schemas.Page[schemas.DatasetAnswer])
def list_datasets(
    sessions: SessionsOf, caller: JobsReader, limit: Limit = 20, after: After = None
) -> schemas.Page[schemas.DatasetAnswer]:
    """Datasets of this project, newest first; those too that are still being uploaded."""
    limit = min(limit, 100)
    with sessions() as session:
        rows = datasets.listed(session, caller.project_id, after, limit)
    data = [render_datasets.dataset(row) for row in rows[:limit]]
    more = len(rows) > limit
    return schemas.Page(data=data, has_more=more, next_cursor=data[-1].id if more else None)


@router.get("/{dataset_id}", response_model=schemas.DatasetAnswer)
def read_dataset(dataset_id: str, sessions: SessionsOf, caller: JobsReader) -> schemas.DatasetAnswer:
    """One dataset."""
    return render_datasets.dataset(_row(sessions, caller, dataset_id))


@router.head("/{dataset_id}/files", include_in_schema=False)
@router.get("/{dataset_id}/files", response_class=StreamingResponse)
def list_files(
    dataset_id: str, sessions: SessionsOf, caller: DataReader, store: StoreOf, asked: Conditions
) -> Response:  # fmt: skip
    """Every file with its size and sha256, one JSON object a line, sorted by the bytes of their paths."""
    if _row(sessions, caller, dataset_id).state != "ready":
        raise in_progress("The upload is not complete, so that its files are not known yet")
    return download(store, asked, folder_of(dataset_id), LISTING, "application/x-ndjson")


@router.delete("/{dataset_id}", status_code=204, response_class=Response)
def delete_dataset(dataset_id: str, sessions: SessionsOf, caller: JobsWriter, store: StoreOf) -> Response:
    """Delete a dataset, or give up an upload in parts. 409 while a job that has not ended reads it."""
    row = _row(sessions, caller, dataset_id)
    if row.state == "uploading" and row.form == "body":
        raise in_progress("The dataset is being received; end that request, or wait for it")
    give_up(sessions, Vault(store), row, "deleted" if row.state == "ready" else "aborted", caller)
    return Response(status_code=204)


@router.put("/{dataset_id}/parts/{number}", response_model=schemas.PartAnswer, openapi_extra=kinds.PART)
async def put_part(
    request: Request, dataset_id: str, number: Number, sessions: SessionsOf, caller: JobsWriter, settings: SettingsOf,
    store: StoreOf, sha256: Sha256 = None, content_digest: ContentDigest = None,
) -> schemas.PartAnswer:  # fmt: skip
    """Send one part, in any order and several at a time; sending it again replaces it.

    With its sha256, a part that was damaged on its way is refused.
    """
    told = digest.told_sha256(sha256, content_digest)

    def look() -> Dataset:
        with sessions() as session:
            return parts.open_upload(session, caller.project_id, dataset_id)

    row = await run_in_threadpool(look)
    body = Body(request, settings.upload_part_limit_bytes, settings.upload_stall_seconds)
    return render_datasets.part(await parts.put(Depot(sessions, settings, Vault(store)), body, row, number, told))


@router.get("/{dataset_id}/parts", response_model=schemas.Page[schemas.PartAnswer])
def list_parts(
    dataset_id: str, sessions: SessionsOf, caller: JobsReader, limit: Limit = 1000,
    after: Annotated[int, Query(ge=0, le=10_000, description="the last number of the page before")] = 0,
) -> schemas.Page[schemas.PartAnswer]:  # fmt: skip
    """The parts that have arrived, by number; at most 1000 in one page."""
    limit = min(limit, 1000)
    _row(sessions, caller, dataset_id)
    with sessions() as session:
        rows = datasets.parts_of(session, dataset_id, after, limit + 1)
    data = [render_datasets.part(row) for row in rows[:limit]]
    more = len(rows) > limit
    return schemas.Page(data=data, has_more=more, next_cursor=str(data[-1].number) if more else None)


@router.post("/{dataset_id}/complete", response_model=schemas.DatasetAnswer)
async def complete(
    request: Request, dataset_id: str, sessions: SessionsOf, caller: JobsWriter, settings: SettingsOf, store: StoreOf
) -> Response:
    """Put the parts together; asking again changes nothing.

    200 with the dataset, `ready`. 202 where that takes longer than a request should: ask again after `Retry-After`.
    """
    work = run_in_threadpool(parts.put_together, Depot(sessions, settings, Vault(store)), caller, dataset_id)
    ready = await _within(work, settings.wait_limit_seconds, request.app.state.working)
    return await run_in_threadpool(_answer, sessions, caller, dataset_id, 200 if ready else 202)


async def _within(work: Coroutine[Any, Any, bool], seconds: float, working: set[asyncio.Task[bool]]) -> bool:
    """What the work comes to, or False when the time is over: it goes on then, and nobody waits for it."""
    task = asyncio.create_task(work)
    working.add(task)  # the loop alone would not keep it
    task.add_done_callback(working.discard)
    try:
        return await asyncio.wait_for(asyncio.shield(task), seconds)
    except TimeoutError:
        return False


def _row(sessions: Sessions, caller: Principal, dataset_id: str) -> Dataset:
    with sessions() as session:
        row = datasets.of(session, caller.project_id, dataset_id)
    if row is None:
        raise not_found("dataset")
    return row


def _answer(
    sessions: Sessions, caller: Principal, dataset_id: str, status: int, replayed: bool = False
) -> Response:  # fmt: skip
    answer = render_datasets.dataset(_row(sessions, caller, dataset_id))
    headers = {"Location": answer.urls["self"]} if status == 201 else {}
    if replayed:
        headers["Idempotency-Replayed"] = "true"
    if status == 202:
        headers["Retry-After"] = "2"
    return Response(answer.model_dump_json(), status, headers, "application/json")
