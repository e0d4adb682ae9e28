"""`/v1/jobs/{id}/artifacts`: traces and exported models, and their files, with ranges."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated

from fastapi import APIRouter, Header, Query
from fastapi.responses import Response, StreamingResponse

from api import render, schemas
from api.book import queries
from api.deps import Caller, SessionsOf, StoreOf
from api.errors import Code, Problem, not_found
from api.store import send

router = APIRouter(prefix="/v1/jobs/{job_id}/artifacts", tags=["artifacts"])


@router.get("", response_model=schemas.Page[schemas.ArtifactAnswer])
def list_artifacts(job_id: str, sessions: SessionsOf, caller: Caller) -> schemas.Page[schemas.ArtifactAnswer]:
    """What the job left beside its checkpoints, newest first."""
    with sessions() as session:
        if queries.job_of(session, caller.project_id, job_id) is None:
            raise not_found("job")
        data = [render.artifact(row) for row in queries.artifacts_of(session, job_id)]
    return schemas.Page(data=data, has_more=False)


@router.get("/{artifact_id}", response_model=schemas.ArtifactAnswer)
def read_artifact(job_id: str, artifact_id: str, sessions: SessionsOf, caller: Caller) -> schemas.ArtifactAnswer:
    """One artifact, with its files, their sizes and their sha256."""
    with sessions() as session:
        job = queries.job_of(session, caller.project_id, job_id)
        row = queries.artifact_of(session, job_id, artifact_id) if job else None
        if row is None:
            raise not_found("artifact")
        return render.artifact(row)


@router.get("/{artifact_id}/download", response_class=StreamingResponse)
def download(
    job_id: str, artifact_id: str, sessions: SessionsOf, caller: Caller, store: StoreOf,
    file: Annotated[str | None, Query(max_length=200, description="a name out of `files`")] = None,
    range_header: Annotated[str | None, Header(alias="Range", max_length=100)] = None,
) -> Response:  # fmt: skip
    """One file of an artifact, by name where it has several; a `Range` resumes a broken download."""
    answer = read_artifact(job_id, artifact_id, sessions, caller)
    name = _file_of(answer, file)
    attachment = f'attachment; filename="{job_id}-{answer.format}-{PurePosixPath(name).name}"'
    return send(
        store.open(answer.path, name), answer.files[name], "application/octet-stream", range_header=range_header,
        headers={"Content-Disposition": attachment},
    )  # fmt: skip


def _file_of(answer: schemas.ArtifactAnswer, asked: str | None) -> str:
    if asked is None and len(answer.files) == 1:
        return next(iter(answer.files))
    names = ", ".join(sorted(answer.files))
    if asked is None:
        raise Problem(422, Code.INVALID_REQUEST, "This artifact has several files", hint=f"Name one in ?file=: {names}")
    if asked not in answer.files:
        raise not_found(f"file in this artifact (it has {names})")
    return asked
