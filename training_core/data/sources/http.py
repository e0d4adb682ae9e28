"""One pooled HTTP client for S3 and the web: deadlines, whole bodies, no retries and no redirects of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

import urllib3

from training_core.data.sources.errors import CutShort, HttpStatus
from training_core.outgoing import Networks, pool_manager

CONNECT_SECONDS = 5.0
READ_SECONDS = 20.0
SLOWEST_BYTES_PER_SECOND = 50_000
CHUNK_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Answer:
    """`total` is the size of the whole object, also where `body` is a part of it; -1 when the server does not say."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    total: int


class HttpClient:
    """Safe from many threads. Make it in the process that uses it."""

    def __init__(self, connections: int, networks: Networks) -> None:
        timeout = urllib3.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS)
        self._pool = pool_manager(
            networks, num_pools=8, maxsize=connections, block=False, timeout=timeout, retries=False
        )

    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        *,
        most: int,
        allowed: Callable[[int], bool] | None = None,
    ) -> Answer:
        """The whole answer. Raises `HttpStatus` for an error status, `CutShort` for half a body, and `Denied`.

        `most` bounds the body in bytes; more of it is refused, whatever the header said. `allowed` lets further status
        codes through as answers.
        """
        try:
            response = self._pool.request(
                method, url, headers=dict(headers), preload_content=False, decode_content=False, redirect=False
            )
        except urllib3.exceptions.HTTPError as problem:
            raise _plain(problem) from problem
        try:
            if response.status >= 300 and not (allowed and allowed(response.status)):
                raise HttpStatus(response.status, _seconds(response.headers.get("Retry-After")))
            body = b"" if method == "HEAD" else _body(cast(urllib3.HTTPResponse, response), most)
            answer = Answer(response.status, response.headers, body, _total(response, len(body)))
        except BaseException:
            response.close()
            raise
        response.release_conn()
        return answer


def _body(response: urllib3.HTTPResponse, most: int) -> bytes:
    declared = _integer(response.headers.get("Content-Length"))
    if declared > most:
        raise TooLong
    deadline = time.monotonic() + READ_SECONDS + max(declared, 0) / SLOWEST_BYTES_PER_SECOND
    parts: list[bytes] = []
    size = 0
    try:
        # Each read returns with what is there, so that a server that sends a byte now and then is seen through.
        while size != declared and (part := response.read1(CHUNK_BYTES)):
            parts.append(part)
            size += len(part)
            if size > most:
                raise TooLong
            if time.monotonic() > deadline:
                raise TimeoutError("the body comes too slowly")
    except urllib3.exceptions.HTTPError as problem:
        raise _plain(problem) from problem
    if declared >= 0 and size != declared:
        raise CutShort(f"{size} of {declared} bytes came")
    return b"".join(parts)


class TooLong(OSError):
    """The body is longer than whoever asked can take."""


def _plain(problem: urllib3.exceptions.HTTPError) -> OSError:
    if isinstance(problem, urllib3.exceptions.TimeoutError):
        return TimeoutError("no answer in time")
    if isinstance(problem, urllib3.exceptions.IncompleteRead | urllib3.exceptions.ProtocolError):
        return CutShort("the connection was cut")
    return ConnectionError(f"no connection ({type(problem).__name__})")


def _total(response: urllib3.BaseHTTPResponse, received: int) -> int:
    content_range = response.headers.get("Content-Range", "")
    if content_range:
        return _integer(content_range.rpartition("/")[2])
    length = _integer(response.headers.get("Content-Length"))
    return length if length >= 0 else received


def _integer(text: str | None) -> int:
    return int(text) if text is not None and text.isascii() and text.isdecimal() else -1


def _seconds(text: str | None) -> float:
    return float(max(0, _integer(text)))
