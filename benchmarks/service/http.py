"""A client that costs next to nothing, so that hundreds of them leave the machine to the server."""

from __future__ import annotations

import asyncio
import re
from typing import NamedTuple

_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
_AGAIN = re.compile(rb"retry-after: (\d+)", re.IGNORECASE)


class Answer(NamedTuple):
    status: int
    retry_after: float


class Connection:
    """Kept open from one GET to the next, and made anew when the server ended it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def get(self, path: str, headers: str) -> Answer:
        """Raises `OSError` or `IncompleteReadError` when the server ends the connection."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        writer.write(f"GET {path} HTTP/1.1\r\nHost: here\r\n{headers}\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        length, again = _LENGTH.search(head), _AGAIN.search(head)
        await reader.readexactly(int(length[1]) if length else 0)
        return Answer(int(head[9:12]), float(again[1]) if again else 0.0)

    async def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None
