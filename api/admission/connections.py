"""Connections that cost without asking: headers that come slowly or by halves, and more connections than there is room.

uvicorn closes connections that are idle after an answer; the rest of its deadlines are here. Bodies have theirs in
`limits.py`.
"""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from uvicorn.protocols.http.h11_impl import H11Protocol

_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
_NO_ROOM = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 2\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class Connection(H11Protocol):
    """uvicorn's, which has `header_seconds` for the headers of each request, however many bytes of them come when.

    When there are `most` connections the one that has waited longest for a request makes room for a new one; where all
    are busy, the new one gets a 503.
    """

    header_seconds: ClassVar[float] = 10.0
    most: ClassVar[int] = 2000

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.waiting_since: float | None = None
        self._deadline: asyncio.TimerHandle | None = None

    @property
    def busy(self) -> bool:
        """A request is being answered."""
        return self.cycle is not None and not self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        has_room = len(self.connections) < self.most or self._make_room()
        super().connection_made(transport)
        if not has_room:
            self._end(_NO_ROOM)
            return
        self._expect_headers()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.busy or self.transport.is_closing():
            self._forget_deadline()
            self.waiting_since = None
        elif self._deadline is None:
            self._expect_headers()

    def on_response_complete(self) -> None:
        self.waiting_since = self.loop.time()
        super().on_response_complete()
        if self.busy:  # the next request was there already
            self.waiting_since = None

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_deadline()
        super().connection_lost(exc)

    def _expect_headers(self) -> None:
        self.waiting_since = self.loop.time()
        self._deadline = self.loop.call_later(self.header_seconds, self._too_late)

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_late(self) -> None:
        self._deadline = None
        if not self.busy and not self.transport.is_closing():
            self._end(_TOO_SLOW if self.conn.trailing_data[0] else b"")

    def _make_room(self) -> bool:
        idle = [one for one in self.connections if isinstance(one, Connection) and one.waiting_since is not None]
        if not idle:
            return False
        oldest = min(idle, key=lambda one: one.waiting_since or 0.0)
        oldest.waiting_since = None
        oldest._end(b"")
        return True

    def _end(self, last_words: bytes) -> None:
        if last_words:
            self.transport.write(last_words)
        self.transport.close()


def bounded(header_seconds: float, most: int) -> type[Connection]:
    """The protocol with these bounds, as uvicorn takes it."""
    return type("BoundedConnection", (Connection,), {"header_seconds": header_seconds, "most": most})
