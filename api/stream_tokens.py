"""Short-lived tokens with which a browser's `EventSource`, which can send no header, opens a stream.

A token names the project, the key that asked for it, the job (or all), and its end, and is signed by the server. It
opens streams alone, and none once its key has ended.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from typing import NamedTuple
from urllib.parse import parse_qsl, urlencode

from starlette.types import ASGIApp, Receive, Scope, Send

from api import cursors

PREFIX = "st_"
PARAMETER = "token"
_CHARACTERS = 1000


class Unreadable(Exception):
    """No token of ours, or one whose time is over."""


class StreamToken(NamedTuple):
    """What a token allows. `job_id` is None for every job of the project; `ends` are seconds since 1970."""

    project_id: str
    key_id: str
    job_id: str | None
    ends: int

    def opens(self, job_id: str) -> bool:
        return self.job_id in (None, job_id)


class Signer:
    """Signs and reads tokens; all API processes with one `signing_key` take each other's.

    Without a key it has one of chance, so that tokens hold as long as the process.
    """

    def __init__(self, signing_key: str) -> None:
        material = signing_key.encode() if signing_key else secrets.token_bytes(32)
        self._key = hmac.digest(material, b"trainyard stream tokens", hashlib.sha256)

    def sign(self, token: StreamToken) -> str:
        payload = cursors.write(token._asdict())
        return f"{PREFIX}{payload}.{self._mac(payload)}"

    def read(self, text: str) -> StreamToken:
        """Raises `Unreadable`."""
        payload, _, mac = text.removeprefix(PREFIX).partition(".")
        if len(text) > _CHARACTERS or not hmac.compare_digest(mac.encode(), self._mac(payload).encode()):
            raise Unreadable
        try:
            token = StreamToken(**cursors.read(payload))  # type: ignore[arg-type]  # what we signed is one
        except (cursors.Unreadable, TypeError):
            raise Unreadable from None
        if token.ends <= time.time():
            raise Unreadable
        return token

    def _mac(self, payload: str) -> str:
        return hmac.new(self._key, payload.encode(errors="replace"), hashlib.sha256).hexdigest()


class TokenOutOfQuery:
    """Takes `?token=` out of every address before anybody can log it, and gives it on as `Authorization`.

    The scope is changed in place: the server's access log reads the same one.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["query_string"]:
            given = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
            tokens = [value for name, value in given if name == PARAMETER]
            if tokens:
                rest = [(name, value) for name, value in given if name != PARAMETER]
                scope["query_string"] = urlencode(rest).encode()
                if not any(name == b"authorization" for name, _ in scope["headers"]):
                    header = f"Bearer {tokens[0]}".encode("latin-1", errors="replace")
                    scope["headers"] = [*scope["headers"], (b"authorization", header)]
        await self.app(scope, receive, send)
