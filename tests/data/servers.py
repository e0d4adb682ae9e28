"""A small real web server that misbehaves as it is told, and S3 on loopback."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Site:
    """`files` by path. `ills` says what is wrong with a path: a status, `cut`, `drip`,
    `silent`, `reset`, `no ranges`, `no head`.

    A list of ills is used up, one each request. `asked` counts the requests for each method and path.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    ills: dict[str, object] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    patience: threading.Event = field(default_factory=threading.Event)
    etag: str = ""
    region: str = ""
    url: str = ""
    host: str = ""

    def ill(self, path: str) -> object:
        ill = self.ills.get(path)
        return (ill.pop(0) if ill else None) if isinstance(ill, list) else ill


class _Server(ThreadingHTTPServer):
    site: Site

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._open: list[socket.socket] = []

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        self._open.append(connection)
        return connection, address

    def hang_up(self) -> None:
        """Clients keep their connections open for the next request, and their threads here wait for it."""
        for connection in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_: object) -> None:
        return

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, *, with_body: bool) -> None:
        site, path = self.server.site, self.path
        site.asked[f"{self.command} {path}"] += 1
        if path in site.moved:
            self.head(302, 0, Location=site.moved[path])
            return
        ill = site.ill(path)
        if isinstance(ill, int):
            self.head(ill, 0, **({"x-amz-bucket-region": site.region} if site.region else {}))
        elif ill == "reset":
            self.close_connection = True
        elif ill == "silent":
            site.patience.wait()
            self.close_connection = True
        elif ill == "no head" and not with_body:
            self.head(403, 0)
        elif path not in site.files:
            self.head(404, 0)
        else:
            self.send(site.files[path], ill, with_body=with_body)

    def send(self, content: bytes, ill: object, *, with_body: bool) -> None:
        total, status = len(content), 200
        extra = {"ETag": self.server.site.etag or f'"{hash(content)}"'}
        wanted = self.headers.get("Range")
        if wanted and ill != "no ranges":
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            content, status = content[int(first) : int(last) + 1], 206
            extra["Content-Range"] = f"bytes {first}-{last}/{total}"
        self.head(status, len(content) if with_body else total, **extra)
        if with_body and ill == "drip":
            self.drip(content)
        elif with_body:
            self.wfile.write(content[: len(content) // 2] if ill == "cut" else content)
            self.close_connection = self.close_connection or ill == "cut"

    def drip(self, content: bytes) -> None:
        """A byte every 10 ms, until it is done, nobody listens, or the test ends."""
        with suppress(ConnectionError):
            for position in range(len(content)):
                self.wfile.write(content[position : position + 1])
                if self.server.site.patience.wait(0.01):
                    return
        self.close_connection = True

    def head(self, status: int, length: int, **extra: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        for name, value in extra.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()


@contextmanager
def serve(site: Site) -> Iterator[Site]:
    server = _Server(("127.0.0.1", 0), _Handler)
    server.site = site
    site.host = f"127.0.0.1:{server.server_address[1]}"
    site.url = f"http://{site.host}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield site
    finally:
        site.patience.set()
        server.shutdown()
        server.hang_up()
        thread.join()
        server.server_close()
