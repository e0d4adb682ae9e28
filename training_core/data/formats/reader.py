"""Reads samples that are files, or ranges of files, of a source."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from training_core.data.listing import Listing
from training_core.data.samples import Content, Samples, Unreadable
from training_core.data.sources import Piece

MISSING = Unreadable("there is no such file")
ROWS_TOGETHER = 512


class Reads(Protocol):
    def read(self, pieces: Iterable[Piece]) -> Iterator[bytes | Unreadable]: ...


class FileReader:
    """`entries.int64` beside the samples holds each sample's row in the listing, -1 for a file that is not there."""

    def __init__(
        self, source: Reads, listing: Listing, samples: Samples, shape: tuple[int, int, int] | None = None
    ) -> None:
        self._source, self._listing, self._shape = source, listing, shape
        self._table = samples.table().select(["offset", "size"])
        self._entries = entry_rows(samples.file.parent)

    def read(self, rows: Sequence[int] | NDArray[np.int64]) -> Iterator[tuple[int, Content]]:
        asked: deque[tuple[int, bool]] = deque()
        contents = self._source.read(self._pieces(np.asarray(rows, np.int64), asked))
        for content in contents:
            while not asked[0][1]:
                yield asked.popleft()[0], MISSING
            yield asked.popleft()[0], self._shaped(content)
        yield from ((row, MISSING) for row, _ in asked)

    def _pieces(self, rows: NDArray[np.int64], asked: deque[tuple[int, bool]]) -> Iterator[Piece]:
        for start in range(0, len(rows), ROWS_TOGETHER):
            chunk = rows[start : start + ROWS_TOGETHER]
            numbers = self._entries[chunk]
            entries = iter(self._listing.entries(numbers[numbers >= 0]))
            places = self._table.take(chunk).to_pydict()
            for row, number, offset, size in zip(chunk, numbers, places["offset"], places["size"], strict=True):
                asked.append((int(row), bool(number >= 0)))
                if number >= 0:
                    entry = next(entries)
                    yield Piece(entry) if offset < 0 else Piece(entry, offset, size)

    def _shaped(self, content: bytes | Unreadable) -> Content:
        if self._shape is None or isinstance(content, Unreadable):
            return content
        return np.frombuffer(content, np.uint8).reshape(self._shape)


def entry_rows(folder: Path) -> NDArray[np.int64]:
    rows: NDArray[np.int64] = np.memmap(folder / "entries.int64", np.int64, "r")
    return rows
