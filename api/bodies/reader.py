"""Reads bodies without stopping the event loop: small ones at once, large ones one by one in a process of their own.

Pydantic holds the interpreter's lock for as long as it validates, so a thread would stop the loop all the same.
"""

from __future__ import annotations

import asyncio
import pickle
import sys
from asyncio.subprocess import PIPE, Process
from contextlib import suppress
from typing import TypeVar

from pydantic import BaseModel

from api.bodies import bounds
from api.bodies.child import LENGTH_BYTES, framed
from api.bodies.reading import Check, Refused, read
from api.errors import Code, Problem

Asked = TypeVar("Asked", bound=BaseModel)

SMALL_BYTES = 8_000
SMALL_VALUES = 300
WAITING = 16
LONGEST_SECONDS = 30.0
CODES = {400: Code.MALFORMED_JSON, 413: Code.BODY_TOO_LARGE}


class BodyReader:
    """One for each application. Its process starts with the first large body."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._child: Process | None = None

    async def read(self, body: bytes, asked: type[Asked], check: Check | None = None) -> Asked:
        """The model in the body; raises a 4xx problem that says what is wrong where, 503 when too many wait."""
        try:
            if check is None and len(body) <= SMALL_BYTES and bounds.values_at_most(body) <= SMALL_VALUES:
                return read(body, asked)
            if len(body) <= SMALL_BYTES and bounds.values_at_most(body) <= SMALL_VALUES:
                return await asyncio.to_thread(read, body, asked, check)
            return await self._in_turn(body, asked, check)
        except Refused as refused:
            raise problem_of(refused) from None

    async def close(self) -> None:
        if self._child is not None and self._child.returncode is None:
            self._child.kill()
            await self._child.wait()

    async def _in_turn(self, body: bytes, asked: type[Asked], check: Check | None) -> Asked:
        if self._waiting >= WAITING:
            raise _busy()
        self._waiting += 1
        try:
            async with self._turn:
                return await self._ask(framed(pickle.dumps((body, asked, check))))
        finally:
            self._waiting -= 1

    async def _ask(self, question: bytes) -> Asked:
        child = await self._running()
        assert child.stdin is not None  # noqa: S101  it was started with pipes
        assert child.stdout is not None  # noqa: S101
        answered = False
        try:
            async with asyncio.timeout(LONGEST_SECONDS):
                child.stdin.write(question)
                await child.stdin.drain()
                length = int.from_bytes(await child.stdout.readexactly(LENGTH_BYTES), "big")
                content = await child.stdout.readexactly(length)
                answered = True
        except (TimeoutError, OSError, asyncio.IncompleteReadError):
            raise _busy() from None
        finally:
            if not answered:  # also when the client went away: nobody may get the answer to this question
                with suppress(ProcessLookupError):
                    child.kill()
                self._child = None
        answer = pickle.loads(content)  # noqa: S301  by our own process
        if isinstance(answer, Refused):
            raise answer
        model: Asked = answer
        return model

    async def _running(self) -> Process:
        if self._child is None or self._child.returncode is not None:
            command = [sys.executable, "-m", "api.bodies.child"]
            self._child = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, limit=1 << 20)
        return self._child


def problem_of(refused: Refused) -> Problem:
    if refused.status == 422:
        others = len(refused.entries) - 1 + refused.more
        detail = refused.detail + (f" (and {others} more)" if others else "")
        return Problem(422, Code.INVALID_REQUEST, detail, errors=refused.entries)
    hint = "Send one JSON object as UTF-8"
    return Problem(refused.status, CODES[refused.status], refused.detail, hint=hint)


def _busy() -> Problem:
    detail = "Too many large bodies are being read; nothing was changed"
    return Problem(503, Code.OVERLOADED, detail, retryable=True, headers={"Retry-After": "5"})
