"""A request's body as it comes: about a megabyte at a time, bounded in bytes, cut off when it stops coming."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from fastapi import Request
from starlette.requests import ClientDisconnect

from api.errors import Code, Problem

PIECE_BYTES = 1 << 20
PROGRESS_BYTES = 1 << 16
# What is left of the body is not read: the connection cannot serve another request.
CLOSE = {"Connection": "close"}


class Body:
    """`size` bytes have come. Raises 413 and 408 problems, and `ClientDisconnect`."""

    def __init__(self, request: Request, limit_bytes: int, stall_seconds: float) -> None:
        self._stream = request.stream().__aiter__()
        self._limit, self._stall = limit_bytes, stall_seconds
        self.announced = announced(request)
        self.size = 0
        if self.announced is not None and self.announced > limit_bytes:
            raise too_large(limit_bytes)

    async def pieces(self) -> AsyncIterator[bytes]:
        """Every stretch of `stall_seconds` must bring `PROGRESS_BYTES` or the end."""
        gathered, done = bytearray(), False
        while not done:
            done = await self._gather(gathered)
            while len(gathered) >= PIECE_BYTES or (done and gathered):
                piece = bytes(gathered[:PIECE_BYTES])
                del gathered[:PIECE_BYTES]
                yield piece

    async def _gather(self, gathered: bytearray) -> bool:
        """Add at least `PROGRESS_BYTES`; True at the end."""
        wanted = self.size + PROGRESS_BYTES
        try:
            async with asyncio.timeout(self._stall):
                while self.size < wanted:
                    some = await anext(self._stream, None)
                    if some is None:
                        return True
                    self.size += len(some)
                    if self.size > self._limit:
                        raise too_large(self._limit)
                    gathered += some
        except TimeoutError:
            detail = f"Less than {PROGRESS_BYTES >> 10} KiB of the body arrived within {self._stall:.0f} s"
            raise Problem(408, Code.BODY_TIMEOUT, detail, retryable=True, headers=CLOSE) from None
        return False


def announced(request: Request) -> int | None:
    """The Content-Length, where there is one."""
    length = request.headers.get("content-length", "")
    return int(length) if length.isascii() and length.isdigit() and len(length) < 19 else None


def too_large(limit_bytes: int) -> Problem:
    detail = f"The body is larger than {limit_bytes:,} bytes"
    hint = "The operator can raise the limit; a dataset in a bucket needs no upload"
    return Problem(413, Code.BODY_TOO_LARGE, detail, hint=hint, headers=CLOSE, limit_bytes=limit_bytes)


__all__ = ["CLOSE", "Body", "ClientDisconnect", "announced", "too_large"]
