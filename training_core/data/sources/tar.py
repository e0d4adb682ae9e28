"""A tar archive on any source; a compressed one is unpacked once on the worker's disk."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import Any, BinaryIO

from training_core.data.bombs import being_read, check_unpacked
from training_core.data.samples import Unreadable
from training_core.data.sources.container import Container, member_stamp
from training_core.data.sources.errors import reading
from training_core.data.sources.folder import FolderSource
from training_core.data.sources.places import check_name
from training_core.data.sources.ranges import open_ranges
from training_core.data.sources.source import Entry, Piece, Source, stamp_of
from training_core.data.sources.tar_members import BadTar, tar_members

CHUNK_BYTES = 2**20
COMPRESSIONS: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"\xfd7zXZ\0": lzma.open, b"BZh": bz2.open}


class TarSource(Container):
    def identity(self) -> str | None:
        """What its listing can be kept under: walking through an archive is slow."""
        return f"{self.uri} {self._archive.size} {self._archive.stamp}"

    def entries(self) -> Iterator[Entry]:
        """In the order of the archive. Links and devices are left out.

        Raises `Failed(dataset_invalid)` for an archive that is broken or of unsafe names.
        """
        source, plain = self._plain
        with reading(self.uri), source.open(plain) as file:
            try:
                for member in tar_members(file, plain.size):
                    path = self._relative(check_name(member.name.removeprefix("./"), self.uri))
                    if path:
                        # There is no checksum: it changes with the whole archive.
                        stamp = member_stamp(self._archive, 0) ^ stamp_of(f"{member.offset} {member.changed}")
                        yield Entry(path, member.size, stamp, member.offset, member.size)
            except BadTar as problem:
                raise self._broken(f"tar archive: {problem}") from problem

    def read(self, pieces: Iterable[Piece]) -> Iterator[bytes | Unreadable]:
        source, plain = self._plain
        return source.read(
            Piece(plain, piece.entry.offset + piece.start, piece.entry.size if piece.length < 0 else piece.length)
            for piece in pieces
        )

    def open(self, entry: Entry) -> BinaryIO:
        return open_ranges(self, entry)

    @cached_property
    def _plain(self) -> tuple[Source, Entry]:
        """The archive without compression, and where it lies."""
        with reading(self.uri), self._open_archive() as file:
            start = file.read(6)
            file.seek(0)
            for magic, decompress in COMPRESSIONS.items():
                if start.startswith(magic):
                    path = self._spool.keep(self.uri, self._decompressed(file, decompress))
                    source = FolderSource(self.uri, path.parent, [path.parent], path.name)
                    return source, next(source.entries())
        return self._source, self._archive

    def _decompressed(self, file: BinaryIO, decompress: Callable[..., Any]) -> Iterator[bytes]:
        try:
            size = 0
            with being_read(self.uri), decompress(file, "rb") as unpacked:
                while chunk := unpacked.read(CHUNK_BYTES):
                    size += len(chunk)
                    check_unpacked(self.uri, self._archive.size, size)
                    yield chunk
        except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as problem:
            raise self._broken("archive: its compression is damaged") from problem
