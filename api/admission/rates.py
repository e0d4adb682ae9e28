"""Rates and open requests of each key, told in `RateLimit` headers, and wrong keys of each address.

The fields are those of draft-ietf-httpapi-ratelimit-headers-10. All of it happens before the database is asked, and in
the memory of this process alone: with n replicas a key gets up to n times as much.
"""

from __future__ import annotations

import hashlib
import ipaddress
import math
from collections import OrderedDict
from http import HTTPStatus

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.admission.buckets import Buckets, Open
from api.admission.kinds import Kind, kind_of
from api.errors import Code, Problem
from api.settings import Settings

LIMITED = "/v1/"  # health, metrics and the pages about the API are for everybody
OPEN_AGAIN_SECONDS = 2
MOST_KNOWN = 20_000
_FREE = {HTTPStatus.NOT_MODIFIED, HTTPStatus.SERVICE_UNAVAILABLE}  # nothing was asked of the service, or given


class RateLimits:
    """A caller is the `Authorization` header it sends, or its address; only a header that was taken before counts.

    Until a header has been taken by a route, its requests also cost a token of the address, which comes back unless the
    answer is a 401: so whoever guesses keys runs out of tokens, and nobody else does.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self._requests = Buckets(settings.rate_requests, settings.rate_seconds)
        self._guesses = Buckets(settings.rate_guesses, settings.rate_guesses_seconds)
        self._open: dict[Kind, Open] = {
            "waits": Open(settings.open_waits),
            "streams": Open(settings.open_streams),
            "downloads": Open(settings.open_downloads),
            "uploads": Open(settings.open_uploads),
        }
        self._known: OrderedDict[str, None] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(LIMITED):
            return await self.app(scope, receive, send)
        address, header = _address(scope), _authorization(scope)
        caller = address if header is None else hashlib.sha256(header).hexdigest()
        stranger = caller not in self._known
        if stranger and (seconds := self._guesses.take(address)):
            return await _too_many_guesses(seconds).response(Request(scope))(scope, receive, send)
        if seconds := self._requests.take(caller):
            self._settle(caller, address, stranger=stranger, status=HTTPStatus.TOO_MANY_REQUESTS)
            return await self._refuse(_too_fast(seconds), caller, None)(scope, receive, send)
        kind = kind_of(scope)
        if kind is None:
            return await self._answer(scope, receive, send, caller, address, stranger=stranger, kind=None)
        if not self._open[kind].enter(caller):
            self._settle(caller, address, stranger=stranger, status=HTTPStatus.TOO_MANY_REQUESTS)
            return await self._refuse(_too_many_open(kind, self._open[kind].most), caller, kind)(scope, receive, send)
        try:
            return await self._answer(scope, receive, send, caller, address, stranger=stranger, kind=kind)
        finally:
            self._open[kind].leave(caller)

    async def _answer(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        caller: str,
        address: str,
        *,
        stranger: bool,
        kind: Kind | None,
    ) -> None:
        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._settle(caller, address, stranger=stranger, status=message["status"])
                MutableHeaders(scope=message).update(self._headers(caller, kind))
            await send(message)

        await self.app(scope, receive, told)

    def _settle(self, caller: str, address: str, *, stranger: bool, status: int) -> None:
        """Give back what the answer does not cost, and remember who was let in."""
        if status in _FREE:
            self._requests.give_back(caller)
        if status == HTTPStatus.UNAUTHORIZED:
            self._known.pop(caller, None)
            return
        if stranger:
            self._guesses.give_back(address)
        if status < HTTPStatus.BAD_REQUEST and caller != address:
            self._known[caller] = None
            self._known.move_to_end(caller)
            if len(self._known) > MOST_KNOWN:
                self._known.popitem(last=False)

    def _refuse(self, problem: Problem, caller: str, kind: Kind | None) -> ASGIApp:
        async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
            response = problem.response(Request(scope))
            response.headers.update(self._headers(caller, kind))
            await response(scope, receive, send)

        return refuse

    def _headers(self, caller: str, kind: Kind | None) -> dict[str, str]:
        policies, left = [], []
        if self._requests.quota:
            tokens, seconds = self._requests.left(caller)
            policies.append(f'"requests";q={self._requests.quota};w={math.ceil(self._requests.window_seconds)}')
            left.append(f'"requests";r={tokens};t={seconds}')
        if kind is not None and (bound := self._open[kind]).most:
            policies.append(f'"{kind}";q={bound.most};qu="concurrent-requests"')
            left.append(f'"{kind}";r={max(0, bound.left(caller))}')
        return {"RateLimit-Policy": ", ".join(policies), "RateLimit": ", ".join(left)} if policies else {}


def _authorization(scope: Scope) -> bytes | None:
    for name, value in scope["headers"]:
        if name == b"authorization":
            return bytes(value)
    return None


def _address(scope: Scope) -> str:
    """Of IPv6 the network: whoever has one address of it has all."""
    host = scope["client"][0] if scope.get("client") else ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return str(host)
    return str(ipaddress.ip_network((host, 64), strict=False)) if address.version == 6 else str(address)


def _too_fast(seconds: float) -> Problem:
    detail, hint = (
        "This key asks more often than it may",
        "`RateLimit` says what is left; If-None-Match makes asking free",
    )
    return _too_many(Code.RATE_LIMITED, detail, hint, seconds)


def _too_many_open(kind: Kind, most: int) -> Problem:
    detail = f"This key has {most} {kind} open, which is as many as it may"
    return _too_many(Code.TOO_MANY_OPEN, detail, "End one of them first", OPEN_AGAIN_SECONDS)


def _too_many_guesses(seconds: float) -> Problem:
    detail = "Too many requests without a valid API key came from this address"
    return _too_many(Code.TOO_MANY_ATTEMPTS, detail, "Send a valid key, and wait first", seconds)


def _too_many(code: Code, detail: str, hint: str, seconds: float) -> Problem:
    headers = {"Retry-After": str(max(1, math.ceil(seconds)))}
    return Problem(429, code, detail, hint=hint, retryable=True, headers=headers)
