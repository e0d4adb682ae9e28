"""Reads ahead in threads: whole objects below 8 MB, ranges above, neighbours in one request, results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from training_core.data.samples import Unreadable
from training_core.data.sources.source import CHANGED, LARGEST_FILE_BYTES, TOO_LARGE, UNKNOWN_SIZE, Entry, Piece

REQUEST_BYTES = 8 * 2**20
IN_FLIGHT_BYTES = 64 * 2**20
REQUESTS = 32
GAP_BYTES = 64 * 2**10
BATCH_BYTES = 2**20


@dataclass(slots=True)
class Request:
    """Bytes `start` to `stop` of a file; `cuts` are the pieces in it, and `partial` says that a piece goes on.

    `whole` with a file of unknown size asks for all that there is, LARGEST_FILE_BYTES at most.
    """

    entry: Entry
    start: int
    stop: int
    whole: bool = False
    partial: bool = False
    cuts: list[tuple[int, int]] = field(default_factory=list)
    refused: Unreadable | None = None

    @property
    def unsized(self) -> bool:
        return self.whole and self.entry.size == UNKNOWN_SIZE

    @property
    def bytes(self) -> int:
        return REQUEST_BYTES if self.unsized else self.stop - self.start


Fetch = Callable[[Request], bytes | Unreadable]


def read_ahead(
    pieces: Iterable[Piece], fetch: Fetch, *, requests: int = REQUESTS, together: int = 1
) -> Iterator[bytes | Unreadable]:
    """Each piece in turn; about 64 MB at most are under way or wait to be taken.

    `requests` run at a time, each a task of its own or, where they are small, `together` of them in one.
    """
    unfinished: list[bytes | Unreadable] = []
    for request, content in _fetched(_batches(plan(pieces), together), fetch, requests):
        if isinstance(content, bytes) and not request.unsized and len(content) != request.stop - request.start:
            content = CHANGED  # noqa: PLW2901
        if request.partial or unfinished:
            unfinished.append(content)
            if not request.partial:
                yield _joined(unfinished)
                unfinished.clear()
        elif isinstance(content, Unreadable) or request.cuts == [(request.start, request.stop)]:
            for _ in request.cuts:
                yield content
        else:
            for start, stop in request.cuts:
                yield content[start - request.start : stop - request.start]


def _fetched(
    batches: Iterator[list[Request]], fetch: Fetch, requests: int
) -> Iterator[tuple[Request, bytes | Unreadable]]:
    def work(batch: list[Request]) -> list[bytes | Unreadable]:
        return [fetch(one) if one.refused is None else one.refused for one in batch]

    waiting: deque[tuple[list[Request], Future[list[bytes | Unreadable]]]] = deque()
    in_flight = 0
    pool = ThreadPoolExecutor(requests, thread_name_prefix="fetch")
    try:
        following = next(batches, None)
        while following is not None or waiting:
            while following is not None and _may_start(following, in_flight, len(waiting), 2 * requests):
                in_flight += _bytes(following)
                waiting.append((following, pool.submit(work, following)))
                following = next(batches, None)
            batch, future = waiting.popleft()
            contents = future.result()
            in_flight -= _bytes(batch)
            yield from zip(batch, contents, strict=True)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _may_start(batch: list[Request], in_flight: int, waiting: int, most: int) -> bool:
    return waiting == 0 or (waiting < most and in_flight + _bytes(batch) <= IN_FLIGHT_BYTES)


def _bytes(batch: list[Request]) -> int:
    return sum(request.bytes for request in batch)


def _batches(planned: Iterator[Request], together: int) -> Iterator[list[Request]]:
    batch: list[Request] = []
    size = 0
    for request in planned:
        batch.append(request)
        size += request.bytes
        if len(batch) >= together or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def plan(pieces: Iterable[Piece]) -> Iterator[Request]:
    """The requests that bring `pieces`, in their order."""
    open_request: Request | None = None
    for entry, start, length in pieces:
        whole = length < 0
        stop = max(start, entry.size) if whole else start + length
        near = (
            open_request is not None
            and not whole
            and open_request.entry == entry
            and open_request.start <= start <= open_request.stop + GAP_BYTES
            and stop - open_request.start <= REQUEST_BYTES
        )
        if open_request is not None and near:
            open_request.stop = max(stop, open_request.stop)
            open_request.cuts.append((start, stop))
            continue
        if open_request is not None:
            yield open_request
            open_request = None
        if stop - start > LARGEST_FILE_BYTES:
            yield Request(entry, start, start, cuts=[(start, start)], refused=TOO_LARGE)
        elif stop - start > 2 * REQUEST_BYTES:
            yield from _ranges(entry, start, stop)
        else:
            open_request = Request(entry, start, stop, whole=whole, cuts=[(start, stop)])
    if open_request is not None:
        yield open_request


def _ranges(entry: Entry, start: int, stop: int) -> Iterator[Request]:
    for begin in range(start, stop, REQUEST_BYTES):
        end = min(stop, begin + REQUEST_BYTES)
        yield Request(entry, begin, end, partial=end < stop, cuts=[(begin, end)])


def _joined(parts: list[bytes | Unreadable]) -> bytes | Unreadable:
    for part in parts:
        if isinstance(part, Unreadable):
            return part
    return b"".join(part for part in parts if isinstance(part, bytes))
