"""Reads pieces of gzipped files, which are unpacked on the worker's disk when the first piece is asked for."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

from training_core.data.formats.columns import invalid
from training_core.data.samples import Unreadable
from training_core.data.sources import Entry, Piece, Source
from training_core.data.sources.folder import FolderSource
from training_core.data.sources.spool import Spool

CHUNK_BYTES = 2**20


class UnzippedReads:
    """`sizes` are the bytes of each file when unpacked: neither more nor less is taken."""

    def __init__(self, source: Source, folder: Path, sizes: dict[str, int]) -> None:
        self._source, self._folder, self._sizes = source, folder, sizes
        self._spool, self._entries = Spool(folder), dict[str, Entry]()

    def read(self, pieces: Iterable[Piece]) -> Iterator[bytes | Unreadable]:
        for zipped, group in groupby(pieces, lambda piece: piece.entry.path.lower().endswith(".gz")):
            if zipped:
                local = FolderSource(self._source.uri, self._folder, [self._folder])
                yield from local.read(Piece(self._unzipped(one.entry), one.start, one.length) for one in group)
            else:
                yield from self._source.read(group)

    def _unzipped(self, entry: Entry) -> Entry:
        if entry.path not in self._entries:
            path = self._spool.keep(f"{self._source.uri} {entry.path}", self._chunks(entry))
            (self._entries[entry.path],) = FolderSource("", path.parent, [path.parent], path.name).entries()
        return self._entries[entry.path]

    def _chunks(self, entry: Entry) -> Iterator[bytes]:
        size = 0
        try:
            with self._source.open(entry) as packed, gzip.open(packed, "rb") as file:
                while chunk := file.read(CHUNK_BYTES):
                    size += len(chunk)
                    if size > self._sizes[entry.path]:
                        break
                    yield chunk
        except (EOFError, zlib.error, gzip.BadGzipFile) as problem:
            raise invalid(entry.path, "is damaged", "check that the upload is complete") from problem
        if size != self._sizes[entry.path]:
            what = f"unpacks to {size:,} bytes or more, and its header says {self._sizes[entry.path]:,}"
            raise invalid(entry.path, what, "check that the upload is complete")
