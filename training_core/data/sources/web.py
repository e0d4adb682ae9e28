"""One file of a web server, and those beside it. Redirects are followed only to places that may be read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import BinaryIO
from urllib.parse import quote, urljoin

from training_core.contract.redaction import shown
from training_core.contract.uris import Link
from training_core.data.samples import Unreadable
from training_core.data.sources.ahead import REQUESTS, Request, read_ahead
from training_core.data.sources.errors import HttpStatus, is_missing, reading
from training_core.data.sources.http import Answer, HttpClient, TooLong
from training_core.data.sources.places import check_allowed, plain
from training_core.data.sources.ranges import open_ranges
from training_core.data.sources.retry import retried
from training_core.data.sources.source import CHANGED, VANISHED, Entry, Piece, Source, stamp_of
from training_core.outgoing import Networks

REDIRECTS = {301, 302, 303, 307, 308}
NO_HEAD = {403, 405, 501}  # a signed address is good for GET alone
MOST_REDIRECTS = 5
ASKED_TOGETHER = 1024


class WebSource:
    """Web servers do not list: the files are the one that the URI names, and those that a manifest names."""

    def __init__(self, place: Link, allowed: Sequence[str], networks: Networks, token: str | None = None) -> None:
        """`token` goes to the place's own host alone, and never in the clear."""
        self.uri, self._origin, self._token = shown(place.address), origin_of(place), token
        folder, _, self._name = place.address.rpartition("/") if place.path else (place.address, "/", "")
        self._folder, self._allowed = folder + "/", allowed
        self._query = f"?{place.query}" if place.query else ""
        self._http = HttpClient(REQUESTS, networks)

    def entries(self) -> Iterator[Entry]:
        with reading(self.uri):
            entry = self._head(self._name)
            if entry is None:
                raise FileNotFoundError(self._name)
            yield entry

    def find(self, paths: Iterable[str]) -> Iterator[Entry | None]:
        return self._heads(iter(paths))

    def _heads(self, paths: Iterator[str]) -> Iterator[Entry | None]:
        with reading(self.uri), ThreadPoolExecutor(REQUESTS) as pool:
            while chunk := list(islice(paths, ASKED_TOGETHER)):
                yield from pool.map(self._head, chunk)

    def read(self, pieces: Iterable[Piece]) -> Iterator[bytes | Unreadable]:
        with reading(self.uri):
            yield from read_ahead(pieces, self._fetch)

    def beside(self) -> Source | None:
        return None

    def identity(self) -> str | None:
        return None

    def open(self, entry: Entry) -> BinaryIO:
        return open_ranges(self, entry)

    def _fetch(self, request: Request) -> bytes | Unreadable:
        entry, size = request.entry, request.stop - request.start
        headers = {} if request.whole else {"Range": f"bytes={request.start}-{request.stop - 1}"}
        if size == 0:
            return b""
        try:
            answer = retried(lambda: self._send("GET", entry.path, headers, most=entry.size))
        except TooLong:
            return CHANGED
        except HttpStatus as problem:
            if is_missing(problem):
                return VANISHED
            if problem.status == 416:
                return CHANGED
            raise
        if answer.total != entry.size or _stamp(answer) != entry.stamp:
            return CHANGED
        # A server without ranges sends the whole.
        return answer.body[request.start : request.stop] if answer.status == 200 else answer.body

    def _head(self, name: str) -> Entry | None:
        try:
            try:
                answer = retried(lambda: self._send("HEAD", name, {}, most=0))
            except HttpStatus as problem:
                if problem.status not in NO_HEAD:
                    raise
                answer = retried(lambda: self._send("GET", name, {"Range": "bytes=0-0"}, most=1))
        except HttpStatus as problem:
            if is_missing(problem):
                return None
            raise
        return Entry(name, max(answer.total, 0), _stamp(answer))

    def _send(self, method: str, name: str, headers: dict[str, str], *, most: int) -> Answer:
        """Raises `Failed(dataset_forbidden)` where a redirect leads out of the places that may be read."""
        address = self._folder + (name + self._query if name == self._name else quote(name, safe="/-_.~"))
        for _ in range(MOST_REDIRECTS + 1):
            check_allowed(address, self._allowed)
            answer = self._http.request(
                method,
                address,
                headers | self._authorization(address),
                most=max(most, 2**16),
                allowed=lambda status: status in REDIRECTS,
            )
            if answer.status not in REDIRECTS:
                return answer
            address = urljoin(address, answer.headers.get("Location", ""))
        raise HttpStatus(answer.status)

    def _authorization(self, address: str) -> dict[str, str]:
        if self._token is None or origin_of(plain(address)) != self._origin or self._origin[0] != "https":
            return {}
        return {"Authorization": f"Bearer {self._token}"}


def origin_of(link: Link) -> tuple[str, str, int | None]:
    return link.scheme, link.host, link.port


def _stamp(answer: Answer) -> int:
    return stamp_of(answer.headers.get("ETag") or answer.headers.get("Last-Modified") or "")
