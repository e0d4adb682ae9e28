"""Every answer carries a `Request-Id`, also the one to a request that met a fault of ours."""

from __future__ import annotations

import logging
import re

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from ulid import ULID

from api.errors import Code, Problem

log = logging.getLogger("trainyard.api")

_REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


class RequestIds:
    """Around everything else. The client's own id where it is harmless, else a new one."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        given = Headers(scope=scope).get("request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else f"req_{ULID()}"
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_named(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Request-Id"] = request_id
            await send(message)

        return await self.app(scope, receive, send_named)


class Faults:
    """An unexpected error becomes a problem, unless its answer has begun: Starlette's own place for that lies outside
    of all middleware, where no header can be added any more."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        begun = False

        async def send_noting(message: Message) -> None:
            nonlocal begun
            begun = begun or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, receive, send_noting)
        except Exception as error:
            if begun:
                raise
            log.error("unexpected error in request %s", scope["state"]["request_id"], exc_info=error)
            detail = "An unexpected error; the request id finds it in the server's log"
            problem = Problem(500, Code.INTERNAL_ERROR, detail)
            await problem.response(Request(scope))(scope, receive, send)
