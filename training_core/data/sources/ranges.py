"""A remote file to seek in, read by ranges."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import BinaryIO, Protocol, cast

from training_core.contract.errors import Failed, Reason
from training_core.data.samples import Unreadable
from training_core.data.sources.ahead import REQUEST_BYTES
from training_core.data.sources.source import Entry, Piece


class Reads(Protocol):
    uri: str

    def read(self, pieces: Iterable[Piece]) -> Iterator[bytes | Unreadable]: ...


class RangeFile(io.RawIOBase):
    def __init__(self, source: Reads, entry: Entry) -> None:
        self._source, self._entry, self._at = source, entry, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._entry.size}[whence]
        self._at = max(0, origin + offset)
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        length = max(0, min(len(buffer), self._entry.size - self._at))
        if length == 0:
            return 0
        (content,) = self._source.read([Piece(self._entry, self._at, length)])
        if isinstance(content, Unreadable):
            raise Failed(
                Reason.DATASET_CHANGED,
                f"{self._entry.path} of {self._source.uri} could not be read: {content.problem}",
                "do not change the data while it is read; start again when it is at rest",
            )
        buffer[:length] = content
        self._at += length
        return length


def open_ranges(source: Reads, entry: Entry, block_bytes: int = REQUEST_BYTES // 8) -> BinaryIO:
    """Small reads share blocks of a MiB; a large one goes out as it is."""
    return cast(BinaryIO, io.BufferedReader(RangeFile(source, entry), block_bytes))
