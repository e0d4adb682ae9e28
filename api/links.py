"""The URLs that answers tell: paths of this service, behind `public_url` where clients reach it by another address."""

from __future__ import annotations

from contextvars import ContextVar

from starlette.types import ASGIApp, Receive, Scope, Send

_PUBLIC_URL: ContextVar[str] = ContextVar("public_url", default="")


def link(path: str) -> str:
    """`/v1/jobs/job_…` as its client can ask for it."""
    return _PUBLIC_URL.get() + path


class PublicUrl:
    """Says to all that answers one request, in whatever thread, how the service is reached from outside."""

    def __init__(self, app: ASGIApp, public_url: str) -> None:
        self.app, self._public_url = app, public_url.rstrip("/")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        token = _PUBLIC_URL.set(self._public_url)
        try:
            await self.app(scope, receive, send)
        finally:
            _PUBLIC_URL.reset(token)
