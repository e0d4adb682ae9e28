"""A static S3 on loopback, quick enough not to be the bottleneck: ranges, listings, a latency for each answer.

python -m benchmarks.data.s3_server SMALL LARGE LATENCY_SECONDS     prints its port
"""

from __future__ import annotations

import asyncio
import os
import sys
from urllib.parse import parse_qs, unquote, urlsplit

SMALL_BYTES, LARGE_BYTES = 60_000, 40 * 2**20
PAGE = 1000


class S3(asyncio.Protocol):
    """One connection. Objects share one random buffer: what they hold is of no matter here."""

    objects: dict[str, int]
    keys: list[str]
    content: memoryview
    latency: float

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport, self.received = transport, b""

    def data_received(self, data: bytes) -> None:
        self.received += data
        while b"\r\n\r\n" in self.received:
            head, _, self.received = self.received.partition(b"\r\n\r\n")
            asyncio.get_running_loop().call_later(self.latency, self.answer, head.decode())

    def answer(self, head: str) -> None:
        first, *lines = head.split("\r\n")
        method, target, _ = first.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        parts = urlsplit(target)
        key = unquote(parts.path).removeprefix("/pets").lstrip("/")
        if not key:
            self.send("200 OK", self.page(parse_qs(parts.query)), "")
        elif key not in self.objects:
            self.send("404 Not Found", b"", "")
        else:
            self.object(method, key, headers.get("range", ""))

    def object(self, method: str, key: str, wanted: str) -> None:
        size = self.objects[key]
        first, last = 0, size - 1
        if wanted:
            begin, _, end = wanted.removeprefix("bytes=").partition("-")
            first, last = int(begin), min(size - 1, int(end or size - 1))
        extra = f'ETag: "{key}"\r\nLast-Modified: Tue, 24 Nov 2026 00:00:00 GMT\r\n'
        extra += f"Content-Range: bytes {first}-{last}/{size}\r\n" if wanted else ""
        body = self.content[first : last + 1]
        self.send("206 Partial Content" if wanted else "200 OK", body if method == "GET" else b"", extra, len(body))

    def page(self, query: dict[str, list[str]]) -> bytes:
        prefix, start = query.get("prefix", [""])[0], int(query.get("continuation-token", ["0"])[0])
        found = [key for key in self.keys if key.startswith(prefix)]
        rows = "".join(
            f'<Contents><Key>{key}</Key><Size>{self.objects[key]}</Size><ETag>"{key}"</ETag></Contents>'
            for key in found[start : start + PAGE]
        )
        more = start + PAGE < len(found)
        token = f"<NextContinuationToken>{start + PAGE}</NextContinuationToken>" if more else ""
        truncated = "true" if more else "false"
        return f"<ListBucketResult><IsTruncated>{truncated}</IsTruncated>{token}{rows}</ListBucketResult>".encode()

    def send(self, status: str, body: bytes | memoryview, extra: str, length: int | None = None) -> None:
        size = len(body) if length is None else length
        self.transport.write(f"HTTP/1.1 {status}\r\nContent-Length: {size}\r\n{extra}\r\n".encode())
        if len(body):
            self.transport.write(body)


async def main(small: int, large: int, latency: float) -> None:
    S3.objects = {f"photos/{number % 2}/{number:05}.jpg": SMALL_BYTES + number % 997 for number in range(small)}
    S3.objects |= {f"photos/{number % 2}/large-{number:02}.jpg": LARGE_BYTES for number in range(large)}
    S3.keys, S3.latency = sorted(S3.objects), latency
    S3.content = memoryview(os.urandom(LARGE_BYTES))
    server = await asyncio.get_running_loop().create_server(S3, "127.0.0.1", 0, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
