"""Under overload some requests are answered in time and the others at once, with a 503, instead of all of them late."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.admission.kinds import kind_of
from api.errors import Code, Problem

LIMITED = "/v1/"  # a process that is alive says so, however busy it is
LINE_PER_PLACE = 8  # a longer line is not served within any patience
RETRY_SECONDS = (2, 6)  # spread, so that those who were sent away do not come back together


class Overload:
    """At most `places` requests are worked on at a time; another one waits up to `patience_seconds` for a place.

    A place is free again when the answer begins. Those that wait for a change or send a file only pass by: the bound of
    their key holds them.
    """

    def __init__(self, app: ASGIApp, places: int, patience_seconds: float) -> None:
        self.app, self._places, self._patience_seconds = app, places, patience_seconds
        self._line: deque[asyncio.Future[None]] = deque()
        self._most_waiting = places * LINE_PER_PLACE

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(LIMITED):
            return await self.app(scope, receive, send)
        if not await self._enter():
            return await _shed().response(Request(scope))(scope, receive, send)
        with self._place() as place:
            if kind_of(scope) in ("waits", "uploads"):
                place.leave()

            async def told(message: Message) -> None:
                if message["type"] == "http.response.start":
                    place.leave()
                await send(message)

            return await self.app(scope, receive, told)

    async def _enter(self) -> bool:
        """Whether there is a place, at once or in time."""
        if self._places > 0:
            self._places -= 1
            return True
        if len(self._line) >= self._most_waiting:
            return False
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._line.append(turn)
        try:
            await asyncio.wait_for(asyncio.shield(turn), self._patience_seconds)
        except TimeoutError:
            return turn.done()
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._leave()  # it came in the same moment as the client went
            turn.cancel()
            raise
        finally:
            if not turn.done():
                turn.cancel()
        return True

    def _leave(self) -> None:
        """The place goes to the first one that still waits for it."""
        while self._line:
            turn = self._line.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._places += 1

    @contextmanager
    def _place(self) -> Iterator[_Place]:
        place = _Place(self)
        try:
            yield place
        finally:
            place.leave()


class _Place:
    """Left once."""

    def __init__(self, overload: Overload) -> None:
        self._overload, self._left = overload, False

    def leave(self) -> None:
        if not self._left:
            self._left = True
            self._overload._leave()


def _shed() -> Problem:
    detail = "The service has more to do than it can answer in time; nothing was done"
    headers = {"Retry-After": str(random.randint(*RETRY_SECONDS))}  # noqa: S311  spreads load
    return Problem(503, Code.OVERLOADED, detail, retryable=True, headers=headers)
