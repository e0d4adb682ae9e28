"""A zip archive on any source. Its directory is read as a stream, so that a million members cost no memory."""

from __future__ import annotations

import bz2
import struct
import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from typing import BinaryIO
from zipfile import BadZipFile

from training_core.contract.errors import Failed, Reason
from training_core.data.bombs import check_unpacked
from training_core.data.samples import Unreadable
from training_core.data.sources.container import Container, member_stamp
from training_core.data.sources.errors import reading
from training_core.data.sources.places import check_name
from training_core.data.sources.source import LARGEST_FILE_BYTES, TOO_LARGE, Entry, Piece
from training_core.data.sources.zip_directory import read_members

LOCAL = struct.Struct("<4s5H3L2H")
STORED, DEFLATED, BZIP2 = METHODS = (0, 8, 12)
LOCAL_EXTRA_BYTES = 256
DAMAGED = Unreadable("its stored content is damaged")
CHUNK_BYTES = 2**20


class ZipSource(Container):
    def entries(self) -> Iterator[Entry]:
        """In the order of the directory, links left out.

        Raises `Failed(dataset_invalid)` for an archive that is broken, encrypted, overlapping or of unsafe names.
        """
        taken = 0
        with reading(self.uri), self._open_archive() as file:
            for member in read_members(file, self._archive.size):
                check_name(member.name, self.uri)
                if member.encrypted:
                    raise Failed(
                        Reason.DATASET_INVALID,
                        f"{member.name!r} in {self.uri} is encrypted",
                        "store it without a password",
                    )
                taken += LOCAL.size + member.stored
                if max(taken, member.offset + LOCAL.size + member.stored) > self._archive.size:
                    raise Failed(
                        Reason.DATASET_INVALID,
                        f"members of {self.uri} overlap, as in a zip bomb",
                        "make the archive again",
                    )
                path = self._relative(member.name)
                if path and not path.endswith("/") and not member.link:
                    stamp = member_stamp(self._archive, member.checksum)
                    yield Entry(path, member.size, stamp, member.offset, member.stored)

    def read(self, pieces: Iterable[Piece]) -> Iterator[bytes | Unreadable]:
        asked: deque[Piece] = deque()
        for raw in self._source.read(self._spans(pieces, asked)):
            piece = asked.popleft()
            yield raw if isinstance(raw, Unreadable) else self._content(raw, piece)

    def _spans(self, pieces: Iterable[Piece], asked: deque[Piece]) -> Iterator[Piece]:
        for piece in pieces:
            asked.append(piece)
            entry = piece.entry
            alone = piece.length >= 0 or max(entry.size, entry.stored) > LARGEST_FILE_BYTES
            header = LOCAL.size + len((self._prefix + entry.path).encode()) + LOCAL_EXTRA_BYTES
            yield self._span(entry.offset, header + (0 if alone else entry.stored))

    def _content(self, raw: bytes, piece: Piece) -> bytes | Unreadable:
        entry, start, length = piece
        if length >= 0:
            with self.open(entry) as file:
                file.seek(start)
                return file.read(length)
        if max(entry.size, entry.stored) > LARGEST_FILE_BYTES:
            return TOO_LARGE
        if len(raw) < LOCAL.size or raw[:4] != b"PK\3\4":
            return DAMAGED
        fields = LOCAL.unpack_from(raw)
        begin = LOCAL.size + fields[9] + fields[10]
        data: bytes | Unreadable = raw[begin : begin + entry.stored]
        if begin + entry.stored > len(raw):  # a long extra field of the local header alone
            (data,) = self._source.read([self._span(entry.offset + begin, entry.stored)])
        return data if isinstance(data, Unreadable) else self._unpacked(data, fields[3], entry)

    def _unpacked(self, data: bytes, method: int, entry: Entry) -> bytes | Unreadable:
        """Never more than a block beyond the size that the directory declares."""
        if method not in METHODS:
            return Unreadable(f"it is compressed by method {method}, which is not supported; use deflate")
        try:
            parts, size = [], 0
            for part in _unpack([data], method, entry.size + 1):
                parts.append(part)
                size += len(part)
                if size > entry.size:
                    return DAMAGED
        except BadZipFile:
            return DAMAGED
        content = parts[0] if len(parts) == 1 else b"".join(parts)
        whole = size == entry.size and entry.stamp in {zlib.crc32(content), member_stamp(self._archive, 0)}
        return content if whole else DAMAGED

    def open(self, entry: Entry) -> BinaryIO:
        """Unpacked on the worker's disk first."""
        return self._spool.keep(f"{self.uri} {entry.path}", self._unpacking(entry)).open("rb")

    def _unpacking(self, entry: Entry) -> Iterator[bytes]:
        with reading(f"{entry.path} in {self.uri}"), self._open_archive() as file:
            file.seek(entry.offset)
            header = file.read(LOCAL.size)
            if len(header) < LOCAL.size or header[:4] != b"PK\3\4":
                raise BadZipFile
            fields = LOCAL.unpack(header)
            if fields[3] not in METHODS:
                raise BadZipFile
            file.seek(fields[9] + fields[10], 1)
            check_unpacked(f"{entry.path} in {self.uri}", entry.stored, entry.size)
            size = 0
            for part in _unpack(_chunks(file, entry.stored), fields[3], CHUNK_BYTES):
                size += len(part)
                if size > entry.size:
                    raise BadZipFile
                yield part
            if size != entry.size:
                raise BadZipFile


def _chunks(file: BinaryIO, length: int) -> Iterator[bytes]:
    while length > 0 and (chunk := file.read(min(length, CHUNK_BYTES))):
        length -= len(chunk)
        yield chunk


def _unpack(chunks: Iterable[bytes], method: int, most: int) -> Iterator[bytes]:
    """Parts of at most `most` bytes, so that a bomb is seen before it has gone off."""
    if method == STORED:
        yield from chunks
        return
    expand = _Inflate() if method == DEFLATED else bz2.BZ2Decompressor()
    for chunk in chunks:
        data = chunk
        while not expand.eof and (data or not expand.needs_input):
            try:
                part = expand.decompress(data, most)
            except (zlib.error, OSError) as problem:
                raise BadZipFile from problem
            yield part
            data = b""


class _Inflate:
    """zlib with the interface of bz2: input that was not used yet stays inside."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(-15)

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def needs_input(self) -> bool:
        return not self._zlib.unconsumed_tail

    def decompress(self, data: bytes, most: int) -> bytes:
        return self._zlib.decompress(self._zlib.unconsumed_tail + data, most)
