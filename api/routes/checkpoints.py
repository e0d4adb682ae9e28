"""`/v1/jobs/{id}/checkpoints`: what was kept, why, the files themselves with ranges, and pins."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response, StreamingResponse

from api import render, schemas
from api.auth import Principal
from api.book import pins, queries
from api.book.database import Sessions
from api.deps import DataReader, JobsReader, JobsWriter, SessionsOf, StoreOf
from api.downloads import Conditions, Kept
from api.downloads import download as send
from api.errors import not_found
from api.pin_files import deleted, put_pin, take_pin

router = APIRouter(prefix="/v1/jobs/{job_id}/checkpoints", tags=["checkpoints"])


@router.get("", response_model=schemas.Page[schemas.CheckpointAnswer])
def list_checkpoints(
    job_id: str, sessions: SessionsOf, caller: JobsReader,
    trial: Annotated[int | None, Query(ge=0, lt=2**31, description="of a search, only those of this one")] = None,
) -> schemas.Page[schemas.CheckpointAnswer]:  # fmt: skip
    """Complete checkpoints that still exist, newest step first."""
    with sessions() as session:
        if queries.job_of(session, caller.project_id, job_id) is None:
            raise not_found("job")
        data = [render.checkpoint(row) for row in queries.checkpoints_of(session, job_id, trial)]
    return schemas.Page(data=data, has_more=False)


@router.get("/{checkpoint_id}", response_model=schemas.CheckpointAnswer)
def read_checkpoint(
    job_id: str, checkpoint_id: str, sessions: SessionsOf, caller: JobsReader
) -> schemas.CheckpointAnswer:
    """One checkpoint, with its files, their sizes and their sha256."""
    with sessions() as session:
        job = queries.job_of(session, caller.project_id, job_id)
        row = queries.checkpoint_of(session, job_id, checkpoint_id) if job else None
        if row is None:
            raise not_found("checkpoint")
        return render.checkpoint(row)


@router.head("/{checkpoint_id}/download", include_in_schema=False)
@router.get("/{checkpoint_id}/download", response_class=StreamingResponse)
def download(
    job_id: str, checkpoint_id: str, sessions: SessionsOf, caller: DataReader, store: StoreOf, asked: Conditions,
    file: Annotated[str, Query(max_length=200, description="a name out of `files`")] = "model.safetensors",
) -> Response:  # fmt: skip
    """One file of a checkpoint, the weights unless another is named; `Range` with `If-Range` resumes a broken download.

    The ETag is its sha256. A file that was changed in the store is a 409.
    """
    answer = read_checkpoint(job_id, checkpoint_id, sessions, caller)
    if file not in answer.files:
        raise not_found(f"file in this checkpoint (it has {', '.join(sorted(answer.files))})")
    kept = Kept(answer.files[file], answer.sha256.get(file))
    save_as = f"{job_id}-step-{answer.step}-{file}"
    folder = _path(job_id, checkpoint_id, sessions, caller)
    return send(store, asked, folder, file, "application/octet-stream", kept=kept, save_as=save_as)


@router.post("/{checkpoint_id}/pin", response_model=schemas.CheckpointAnswer)
def pin(
    job_id: str, checkpoint_id: str, sessions: SessionsOf, caller: JobsWriter, store: StoreOf
) -> schemas.CheckpointAnswer:
    """Keep this checkpoint whatever comes after it; asking again changes nothing."""
    folder = _path(job_id, checkpoint_id, sessions, caller)
    put_pin(store, folder)
    with sessions.begin() as session:
        row = pins.pin(session, caller, job_id, checkpoint_id)
        answer = render.checkpoint(row) if row is not None else None
    if answer is None:
        take_pin(store, folder)
        raise deleted()
    return answer


@router.delete("/{checkpoint_id}/pin", response_model=schemas.CheckpointAnswer)
def unpin(
    job_id: str, checkpoint_id: str, sessions: SessionsOf, caller: JobsWriter, store: StoreOf
) -> schemas.CheckpointAnswer:
    """Leave this checkpoint to retention again; asking again changes nothing."""
    take_pin(store, _path(job_id, checkpoint_id, sessions, caller))
    with sessions.begin() as session:
        row = pins.unpin(session, caller, job_id, checkpoint_id)
        if row is None:
            raise deleted()
        return render.checkpoint(row)


def _path(job_id: str, checkpoint_id: str, sessions: Sessions, caller: Principal) -> str:
    """Where it lies below the store, which no answer says."""
    with sessions() as session:
        job = queries.job_of(session, caller.project_id, job_id)
        row = queries.checkpoint_of(session, job_id, checkpoint_id) if job else None
        if row is None:
            raise not_found("checkpoint")
        return row.path
