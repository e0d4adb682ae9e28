"""`/v1/stream_tokens`: what a browser opens a stream with, in place of an API key."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Response

from api import schemas
from api.auth import Principal
from api.bodies.door import Json
from api.book import queries
from api.book.database import Sessions
from api.deps import JobsReader, SessionsOf, SettingsOf, SignerOf
from api.errors import not_found
from api.schemas import StreamTokenSpec
from api.stream_tokens import StreamToken

router = APIRouter(prefix="/v1/stream_tokens", tags=["stream_tokens"])

TokenBody = Annotated[StreamTokenSpec, Depends(Json(StreamTokenSpec))]


@router.post("", status_code=201, response_model=schemas.StreamTokenAnswer)
def create(
    sessions: SessionsOf, caller: JobsReader, settings: SettingsOf, signer: SignerOf, spec: TokenBody
) -> Response:
    """A token for `?token=` of a stream, for a page that may not have the key; it holds for minutes."""
    if spec.job_id is not None:
        _check_job(sessions, caller, spec.job_id)
    ends = int(time.time()) + settings.stream_token_seconds
    token = signer.sign(StreamToken(caller.project_id, caller.key_id, spec.job_id, ends))
    answer = schemas.StreamTokenAnswer(token=token, job_id=spec.job_id, expires_at=datetime.fromtimestamp(ends, UTC))
    headers = {"Cache-Control": "no-store"}
    return Response(answer.model_dump_json(), 201, headers, "application/json")


def _check_job(sessions: Sessions, caller: Principal, job_id: str) -> None:
    with sessions() as session:
        if queries.job_of(session, caller.project_id, job_id) is None:
            raise not_found("job")
