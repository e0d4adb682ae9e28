"""`/v1/secrets`: credentials of this project, stored sealed and never read back."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request, Response
from fastapi.concurrency import run_in_threadpool

from api import schemas
from api.auth import Principal
from api.bodies.door import Json
from api.book import audit, secrets
from api.book.database import Sessions
from api.book.models import Secret
from api.deps import Administrator, JobsReader, SessionsOf
from api.errors import Code, Problem, invalid_request, not_found
from api.known_secrets import RESERVED
from training_core.contract.sealing import Sealer

router = APIRouter(prefix="/v1/secrets", tags=["secrets"])


def _sealer(request: Request) -> Sealer:
    sealer: Sealer | None = request.app.state.sealer
    if sealer is None:
        detail = "This service stores no secrets: TRAINYARD_SECRETS_KEY is not set"
        hint = "The operator sets it on api and on every worker; `python -m api.secrets new-key` prints a key"
        raise Problem(503, Code.SECRETS_NOT_SET_UP, detail, hint=hint)
    return sealer


SealerOf = Annotated[Sealer, Depends(_sealer)]
SecretName = Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$", description="small letters, digits and dashes")]

Body = Annotated[schemas.SecretBody, Depends(Json(schemas.SecretBody))]


@router.put(
    "/{name}", response_model=schemas.SecretAnswer,
    responses={201: {"model": schemas.SecretAnswer, "description": "It is new"}},
)  # fmt: skip
async def put(name: SecretName, sessions: SessionsOf, caller: Administrator, sealer: SealerOf, asked: Body) -> Response:
    """Store credentials, or replace those of this name; 201 when it is new. `dataset.credentials` takes the name.

    Jobs that are queued or go on later use the new value.
    """
    if name == RESERVED:
        message = "`store` is the name of the operator's own key; take another"
        raise invalid_request([{"type": "value_error", "loc": ("path", "name"), "ctx": {"error": message}}])
    return await run_in_threadpool(_put, sessions, caller, sealer, name, asked)


def _put(sessions: Sessions, caller: Principal, sealer: Sealer, name: str, asked: schemas.SecretBody) -> Response:
    with sessions.begin() as session:
        try:
            row, new = secrets.put(session, sealer, caller.project_id, name, asked.credentials())
        except secrets.TooMany:
            detail = f"This project has {secrets.MOST_IN_A_PROJECT} secrets, and may have no more"
            raise Problem(409, Code.TOO_MANY_SECRETS, detail, hint="DELETE those that no job names") from None
        audit.record(session, caller, "secrets.put", name, {"version": row.version})
        answer = _shown(row).model_dump_json()
    return Response(answer, 201 if new else 200, media_type="application/json")


@router.get("", response_model=schemas.Page[schemas.SecretAnswer])
def list_secrets(sessions: SessionsOf, caller: JobsReader, _: SealerOf) -> schemas.Page[schemas.SecretAnswer]:
    """All secrets of this project by name, without their values."""
    with sessions() as session:
        data = [_shown(row) for row in secrets.all_of(session, caller.project_id)]
    return schemas.Page(data=data, has_more=False, next_cursor=None)


@router.get("/{name}", response_model=schemas.SecretAnswer)
def read(name: SecretName, sessions: SessionsOf, caller: JobsReader, _: SealerOf) -> schemas.SecretAnswer:
    """When the secret was stored, and its fingerprint. Its value is never read back."""
    with sessions() as session:
        row = secrets.find(session, caller.project_id, name)
        if row is None:
            raise not_found("secret")
        return _shown(row)


@router.delete("/{name}", status_code=204, response_class=Response)
def delete(name: SecretName, sessions: SessionsOf, caller: Administrator, _: SealerOf) -> Response:
    """Forget a secret. A job that names it and has still to read its data fails with `credentials_unknown`."""
    with sessions.begin() as session:
        if not secrets.remove(session, caller.project_id, name):
            raise not_found("secret")
        audit.record(session, caller, "secrets.delete", name)
    return Response(status_code=204)


def _shown(row: Secret) -> schemas.SecretAnswer:
    return schemas.SecretAnswer(
        name=row.name, kind=row.kind, fingerprint=row.fingerprint, version=row.version,
        created_at=row.created_at, updated_at=row.updated_at,
    )  # fmt: skip
