"""gzip for whole answers above 1 kB. Streams and files are sent as they are: they have ranges, digests, or no end."""

from __future__ import annotations

import gzip

from fastapi.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LEAST_BYTES = 1000
ASIDE_BYTES = 50_000
LEVEL = 5
TEXTS = ("application/json", "application/problem+json", "text/plain", "text/html", "text/csv", "application/x-ndjson")


class Gzip:
    """An answer that nobody may store (`no-store`) holds a secret: its length may tell nothing of it (BREACH)."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        accepted, start = _accepts(Headers(scope=scope).get("accept-encoding", "")), None

        async def send_packed(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start" and _is_text(Headers(raw=message["headers"])):
                MutableHeaders(scope=message).add_vary_header("Accept-Encoding")
                start = message
                return
            if start is None:
                await send(message)
                return
            held, start = start, None
            body = message.get("body", b"")
            if accepted and not message.get("more_body", False) and len(body) >= LEAST_BYTES:
                message = {**message, "body": await _packed(body)}
                headers = MutableHeaders(scope=held)
                headers["Content-Encoding"], headers["Content-Length"] = "gzip", str(len(message["body"]))
                del headers["Repr-Digest"]  # it was that of the answer as it is
                if (tag := headers.get("etag", "")).startswith('"'):
                    headers["ETag"] = f"W/{tag}"
            await send(held)
            await send(message)

        return await self.app(scope, receive, send_packed)


def _accepts(header: str) -> bool:
    """Whether a client takes gzip: by name or by `*`, and not with a quality of 0."""
    found: dict[str, bool] = {}
    for one in header.lower().split(","):
        name, _, quality = one.replace(" ", "").partition(";q=")
        found[name] = quality.strip("0.") != "" or not quality
    return found.get("gzip", found.get("*", False))


def _is_text(headers: Headers) -> bool:
    if {"content-encoding", "accept-ranges", "content-range"} & set(headers.keys()):
        return False
    return headers.get("content-type", "").partition(";")[0] in TEXTS and "no-store" not in headers.get(
        "cache-control", ""
    )


async def _packed(body: bytes) -> bytes:
    if len(body) < ASIDE_BYTES:
        return gzip.compress(body, LEVEL)
    return await run_in_threadpool(gzip.compress, body, LEVEL)
