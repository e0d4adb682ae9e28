"""`/v1/jobs/{id}/checkpoints`: what was kept, why, the files themselves with ranges, and pins."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Header, Query
from fastapi.responses import Response, StreamingResponse

from api import render, schemas
from api.book import pins, queries
from api.deps import Caller, SessionsOf, StoreOf
from api.errors import Code, Problem, not_found
from api.store import Store, send

PIN_FILE = "pinned"
MANIFEST_FILE = "manifest.json"

router = APIRouter(prefix="/v1/jobs/{job_id}/checkpoints", tags=["checkpoints"])


@router.get("", response_model=schemas.Page[schemas.CheckpointAnswer])
def list_checkpoints(
    job_id: str, sessions: SessionsOf, caller: Caller,
    trial: Annotated[int | None, Query(ge=0, lt=2**31, description="of a search, only those of this one")] = None,
) -> schemas.Page[schemas.CheckpointAnswer]:  # fmt: skip
    """Complete checkpoints that still exist, newest step first."""
    with sessions() as session:
        if queries.job_of(session, caller.project_id, job_id) is None:
            raise not_found("job")
        data = [render.checkpoint(row) for row in queries.checkpoints_of(session, job_id, trial)]
    return schemas.Page(data=data, has_more=False)


@router.get("/{checkpoint_id}", response_model=schemas.CheckpointAnswer)
def read_checkpoint(job_id: str, checkpoint_id: str, sessions: SessionsOf, caller: Caller) -> schemas.CheckpointAnswer:
    """One checkpoint, with its files and their sizes."""
    with sessions() as session:
        job = queries.job_of(session, caller.project_id, job_id)
        row = queries.checkpoint_of(session, job_id, checkpoint_id) if job else None
        if row is None:
            raise not_found("checkpoint")
        return render.checkpoint(row)


@router.get("/{checkpoint_id}/download", response_class=StreamingResponse)
def download(
    job_id: str, checkpoint_id: str, sessions: SessionsOf, caller: Caller, store: StoreOf,
    file: Annotated[str, Query(max_length=200, description="a name out of `files`")] = "model.safetensors",
    range_header: Annotated[str | None, Header(alias="Range", max_length=100)] = None,
) -> Response:  # fmt: skip
    """One file of a checkpoint, the weights unless another is named; a `Range` resumes a broken download."""
    answer = read_checkpoint(job_id, checkpoint_id, sessions, caller)
    if file not in answer.files:
        raise not_found(f"file in this checkpoint (it has {', '.join(sorted(answer.files))})")
    name = f'attachment; filename="{job_id}-step-{answer.step}-{file}"'
    return send(
        store.open(answer.path, file), answer.files[file], "application/octet-stream", range_header=range_header,
        headers={"Content-Disposition": name},
    )  # fmt: skip


@router.post("/{checkpoint_id}/pin", response_model=schemas.CheckpointAnswer)
def pin(
    job_id: str, checkpoint_id: str, sessions: SessionsOf, caller: Caller, store: StoreOf
) -> schemas.CheckpointAnswer:
    """Keep this checkpoint whatever comes after it; asking again changes nothing."""
    folder = read_checkpoint(job_id, checkpoint_id, sessions, caller).path
    _mark(store, folder)
    with sessions.begin() as session:
        row = pins.pin(session, job_id, checkpoint_id)
        answer = render.checkpoint(row) if row is not None else None
    if answer is None:
        store.unmark(folder, PIN_FILE)
        raise _deleted()
    return answer


@router.delete("/{checkpoint_id}/pin", response_model=schemas.CheckpointAnswer)
def unpin(
    job_id: str, checkpoint_id: str, sessions: SessionsOf, caller: Caller, store: StoreOf
) -> schemas.CheckpointAnswer:
    """Leave this checkpoint to retention again; asking again changes nothing."""
    store.unmark(read_checkpoint(job_id, checkpoint_id, sessions, caller).path, PIN_FILE)
    with sessions.begin() as session:
        row = pins.unpin(session, job_id, checkpoint_id)
        if row is None:
            raise _deleted()
        return render.checkpoint(row)


def _mark(store: Store, folder: str) -> None:
    """Retention may be deleting the folder right now: one without its manifest is taken away again."""
    store.mark(folder, PIN_FILE)
    try:
        store.tag(folder, MANIFEST_FILE)
    except Problem as problem:
        if problem.status == HTTPStatus.NOT_FOUND:
            store.unmark(folder, PIN_FILE)
            raise _deleted() from None
        raise


def _deleted() -> Problem:
    detail = "This checkpoint was deleted by retention before it could be pinned"
    hint = "GET …/checkpoints lists those that are left; training.keep_last_checkpoints keeps more of them"
    return Problem(409, Code.CHECKPOINT_DELETED, detail, hint=hint)
