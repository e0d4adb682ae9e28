"""Requests as bytes on a socket, exactly as they were made up: no client library mends them."""

from __future__ import annotations

import http.client
import socket
import time
from dataclasses import dataclass, field

DEADLINE_SECONDS = 10.0
Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True)
class Sent:
    """`template` is the path of the operation that is meant; `tidy` says that a HTTP parser can read it."""

    method: bytes
    target: bytes
    template: str
    headers: Headers = field(default_factory=list)
    body: bytes | None = None
    pieces: int = 0
    tidy: bool = True

    def raw(self, host: bytes) -> bytes:
        lines = [self.method + b" " + self.target + b" HTTP/1.1", b"Host: " + host]
        lines += [name + b": " + value for name, value in self.headers]
        if self.body is None:
            return b"\r\n".join([*lines, b"", b""])
        if self.pieces:
            size = max(1, len(self.body) // self.pieces)
            chunks = [self.body[at : at + size] for at in range(0, len(self.body), size)]
            packed = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
            return b"\r\n".join([*lines, b"Transfer-Encoding: chunked", b"", packed])
        return b"\r\n".join([*lines, b"Content-Length: %d" % len(self.body), b"", self.body])


@dataclass(frozen=True)
class Answer:
    """`status` is 0 where the server closed the connection without a word, -1 where it said nothing in time."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    seconds: float = 0.0


class Line:
    """One connection, made anew when the server closed it."""

    def __init__(self, host: str, port: int) -> None:
        self._address, self._host = (host, port), f"{host}:{port}".encode()
        self._socket: socket.socket | None = None

    def ask(self, sent: Sent) -> Answer:
        """Whatever happens is an answer. Of a stream the beginning is one."""
        began = time.monotonic()
        answer = self._once(sent)
        if answer.status == 0 and sent.tidy:  # the server may close a line that we were about to use
            self.close()
            answer = self._once(sent)
        return Answer(answer.status, answer.headers, answer.body, time.monotonic() - began)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _once(self, sent: Sent) -> Answer:
        try:
            if self._socket is None:
                self._socket = socket.create_connection(self._address, timeout=DEADLINE_SECONDS)
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket.sendall(sent.raw(self._host))
            return self._read(sent.method.decode("latin-1"), tidy=sent.tidy)
        except TimeoutError:
            self.close()
            return Answer(-1)
        except (OSError, http.client.HTTPException, ValueError):
            self.close()
            return Answer(0)

    def _read(self, method: str, *, tidy: bool) -> Answer:
        assert self._socket is not None
        with http.client.HTTPResponse(self._socket, method=method) as response:
            response.begin()
            headers = {name.lower(): value for name, value in response.getheaders()}
            endless = headers.get("content-type", "").startswith("text/event-stream")
            body = b"" if endless else response.read()
            if endless or response.will_close or not tidy:
                self.close()
            return Answer(response.status, headers, body)
