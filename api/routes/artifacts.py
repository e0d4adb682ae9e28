"""`/v1/jobs/{id}/artifacts`: traces and exported models, and their files, with ranges."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response, StreamingResponse

from api import render, schemas
from api.auth import Principal
from api.book import queries
from api.book.database import Sessions
from api.deps import DataReader, JobsReader, SessionsOf, StoreOf
from api.downloads import Conditions, Kept
from api.downloads import download as send
from api.errors import Code, Problem, not_found

router = APIRouter(prefix="/v1/jobs/{job_id}/artifacts", tags=["artifacts"])


@router.get("", response_model=schemas.Page[schemas.ArtifactAnswer])
def list_artifacts(job_id: str, sessions: SessionsOf, caller: JobsReader) -> schemas.Page[schemas.ArtifactAnswer]:
    """What the job left beside its checkpoints, newest first."""
    with sessions() as session:
        if queries.job_of(session, caller.project_id, job_id) is None:
            raise not_found("job")
        data = [render.artifact(row) for row in queries.artifacts_of(session, job_id)]
    return schemas.Page(data=data, has_more=False)


@router.get("/{artifact_id}", response_model=schemas.ArtifactAnswer)
def read_artifact(job_id: str, artifact_id: str, sessions: SessionsOf, caller: JobsReader) -> schemas.ArtifactAnswer:
    """One artifact, with its files, their sizes and their sha256."""
    with sessions() as session:
        job = queries.job_of(session, caller.project_id, job_id)
        row = queries.artifact_of(session, job_id, artifact_id) if job else None
        if row is None:
            raise not_found("artifact")
        return render.artifact(row)


@router.head("/{artifact_id}/download", include_in_schema=False)
@router.get("/{artifact_id}/download", response_class=StreamingResponse)
def download(
    job_id: str, artifact_id: str, sessions: SessionsOf, caller: DataReader, store: StoreOf, asked: Conditions,
    file: Annotated[str | None, Query(max_length=200, description="a name out of `files`")] = None,
) -> Response:  # fmt: skip
    """One file of an artifact, by name where it has several; `Range` with `If-Range` resumes a broken download.

    The ETag is its sha256. A file that was changed in the store is a 409.
    """
    answer = read_artifact(job_id, artifact_id, sessions, caller)
    name = _file_of(answer, file)
    kept = Kept(answer.files[name], answer.sha256[name])
    save_as = f"{job_id}-{answer.format}-{PurePosixPath(name).name}"
    folder = _path(job_id, artifact_id, sessions, caller)
    return send(store, asked, folder, name, "application/octet-stream", kept=kept, save_as=save_as)


def _path(job_id: str, artifact_id: str, sessions: Sessions, caller: Principal) -> str:
    """Where it lies below the store, which no answer says."""
    with sessions() as session:
        job = queries.job_of(session, caller.project_id, job_id)
        row = queries.artifact_of(session, job_id, artifact_id) if job else None
        if row is None:
            raise not_found("artifact")
        return row.path


def _file_of(answer: schemas.ArtifactAnswer, asked: str | None) -> str:
    if asked is None and len(answer.files) == 1:
        return next(iter(answer.files))
    names = ", ".join(sorted(answer.files))
    if asked is None:
        raise Problem(422, Code.INVALID_REQUEST, "This artifact has several files", hint=f"Name one in ?file=: {names}")
    if asked not in answer.files:
        raise not_found(f"file in this artifact (it has {names})")
    return asked
