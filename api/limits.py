"""A ceiling on bodies and on the time they may take to arrive; uvicorn has neither."""

from __future__ import annotations

import asyncio
import re

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import Code, Problem

_PART = re.compile(r"/v1/datasets/[^/]+/parts/[^/]+")


class BodyLimit:
    """Reads the whole body before the application sees the request: 413 when too large, 408 when too slow."""

    def __init__(self, app: ASGIApp, limit_bytes: int, receive_seconds: float) -> None:
        self.app, self.limit_bytes, self.receive_seconds = app, limit_bytes, receive_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS") or is_upload(scope):
            return await self.app(scope, receive, send)
        try:
            async with asyncio.timeout(self.receive_seconds):
                body = await self._read(receive)
        except TimeoutError:
            detail = f"The body did not arrive within {self.receive_seconds:.0f} s"
            problem = Problem(408, Code.BODY_TIMEOUT, detail, retryable=True, headers={"Connection": "close"})
            return await problem.response(Request(scope))(scope, receive, send)
        except Problem as problem:
            return await problem.response(Request(scope))(scope, receive, send)
        if body is None:
            return None
        return await self.app(scope, _replay(body, receive), send)

    async def _read(self, receive: Receive) -> bytes | None:
        """The body, or None when the client went away."""
        parts, size = [], 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            part = message.get("body", b"")
            size += len(part)
            if size > self.limit_bytes:
                detail = f"The body is larger than {self.limit_bytes} bytes"
                hint = "A job spec names its data by URI and never carries it"
                raise Problem(413, Code.BODY_TOO_LARGE, detail, hint=hint, headers={"Connection": "close"})
            parts.append(part)
            if not message.get("more_body", False):
                return b"".join(parts)


def is_upload(scope: Scope) -> bool:
    """Whether the body is that of a dataset, which `api.uploads.body` reads within bounds of its own."""
    if scope["method"] == "PUT":
        return _PART.fullmatch(scope["path"]) is not None
    content_type = dict(scope["headers"]).get(b"content-type", b"").lower()
    return scope["method"] == "POST" and scope["path"] == "/v1/datasets" and b"json" not in content_type


def _replay(body: bytes, receive: Receive) -> Receive:
    waiting = True

    async def replay() -> Message:
        nonlocal waiting
        if waiting:
            waiting = False
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return replay
