"""The one way in for a JSON body: `spec: Annotated[JobSpec, Depends(Json(JobSpec))]`, behind the caller's key."""

from __future__ import annotations

import re
from typing import Generic, TypeVar

from fastapi import Request
from pydantic import BaseModel

from api.bodies.reader import BodyReader
from api.bodies.reading import Check
from api.errors import Code, Problem

Asked = TypeVar("Asked", bound=BaseModel)
_JSON = re.compile(r"application/(json|[a-z0-9.!#$&^_-]+\+json)")


class Json(Generic[Asked]):
    """A dependency that gives the body as a model; OpenAPI learns from it what the route takes.

    `check` yields faults that the model does not know of; it runs where the body is read, and must be a function of a
    module.
    """

    def __init__(self, model: type[Asked], check: Check | None = None) -> None:
        self.model, self._check = model, check

    async def __call__(self, request: Request) -> Asked:
        check_type(request)
        reader: BodyReader = request.app.state.bodies
        return await reader.read(await request.body(), self.model, self._check)


def check_type(request: Request) -> None:
    """Raises a 415 for anything but JSON as it is."""
    media_type, _, parameters = request.headers.get("content-type", "application/json").partition(";")
    media_type = media_type.strip().lower()
    charset = parameters.partition("charset=")[2].strip(' "').lower()
    is_json = media_type == "application/json" or (
        media_type.startswith("application/") and media_type.endswith("+json")
    )
    if not is_json or charset not in ("", "utf-8", "utf8"):
        hint = "Send `Content-Type: application/json`"
        raise Problem(415, Code.UNSUPPORTED_MEDIA_TYPE, "The body must be JSON in UTF-8", hint=hint)
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem(415, Code.UNSUPPORTED_MEDIA_TYPE, "The body must not be compressed", hint="Send it as it is")
