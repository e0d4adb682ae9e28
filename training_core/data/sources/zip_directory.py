"""The directory at the end of a zip archive, read as a stream: PKWARE's APPNOTE 6.3.10, sections 4.3.12 to 4.5.3."""

from __future__ import annotations

import stat
import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple
from zipfile import BadZipFile

END = struct.Struct("<4s4H2LH")
END64_LOCATOR = struct.Struct("<4sLQL")
END64 = struct.Struct("<4sQ2H2L4Q")
CENTRAL = struct.Struct("<4s6H3L5H2L")
LONGEST_COMMENT = 65_535


class Member(NamedTuple):
    name: str
    size: int
    stored: int
    checksum: int
    offset: int
    encrypted: bool
    link: bool


def read_members(file: BinaryIO, size: int) -> Iterator[Member]:
    """Members of an archive of `size` bytes in the order of its directory. Raises `zipfile.BadZipFile`."""
    start, length, shift = _directory(file, size)
    file.seek(start)
    while length > 0:
        header = file.read(CENTRAL.size)
        if len(header) < CENTRAL.size or header[:4] != b"PK\1\2":
            raise BadZipFile
        fields = CENTRAL.unpack(header)
        name, extra = file.read(fields[10]), file.read(fields[11])
        file.seek(fields[12], 1)
        length -= CENTRAL.size + fields[10] + fields[11] + fields[12]
        if length < 0:
            raise BadZipFile
        stored, unpacked, offset = _wide(extra, fields[8], fields[9], fields[16])
        yield Member(
            name.decode("utf-8" if fields[3] & 0x800 else "cp437", "replace"),
            unpacked,
            stored,
            fields[7],
            offset + shift,
            encrypted=bool(fields[3] & 1),
            link=stat.S_ISLNK(fields[15] >> 16),
        )


def _directory(file: BinaryIO, size: int) -> tuple[int, int, int]:
    """Where it begins, its bytes, and how far the archive lies behind where its offsets think."""
    tail_start = max(0, size - END.size - LONGEST_COMMENT)
    file.seek(tail_start)
    tail = file.read(size - tail_start)
    at = tail.rfind(b"PK\5\6")
    if at < 0 or len(tail) - at < END.size:
        raise BadZipFile
    *_, length, offset, _ = END.unpack_from(tail, at)
    end = tail_start + at
    if END64_LOCATOR.size <= end:
        file.seek(end - END64_LOCATOR.size)
        signature, _, end64, _ = END64_LOCATOR.unpack(file.read(END64_LOCATOR.size))
        if signature == b"PK\6\7" and end64 < size:
            file.seek(end64)
            header = file.read(END64.size)
            if len(header) < END64.size or header[:4] != b"PK\6\6":
                raise BadZipFile
            *_, length, offset = END64.unpack(header)
            end = end64
    shift = end - length - offset
    if shift < 0:
        raise BadZipFile
    return end - length, length, shift


def _wide(extra: bytes, stored: int, size: int, offset: int) -> tuple[int, int, int]:
    """Sizes and offsets beyond 4 GiB stand in the extra field 1 (zip64), in this order, where they do not fit."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        at += 4
        if kind == 1 and at + length <= len(extra):
            values = iter(struct.unpack_from(f"<{length // 8}Q", extra, at))
            size = next(values, size) if size == 0xFFFFFFFF else size
            stored = next(values, stored) if stored == 0xFFFFFFFF else stored
            offset = next(values, offset) if offset == 0xFFFFFFFF else offset
        at += length
    return stored, size, offset
