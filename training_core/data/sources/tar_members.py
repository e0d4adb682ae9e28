"""The members of a tar archive: POSIX.1-2017, pax, "ustar Interchange Format", and GNU's long names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

BLOCK = 512
LONGEST_HEADER_BYTES = 2**20
FILES = {b"0", b"\0", b"7"}


class TarMember(NamedTuple):
    """`offset` is that of its content; `changed` its time of change as written."""

    name: str
    size: int
    offset: int
    changed: str


class BadTar(Exception):
    """The words complete "<archive> is not a readable tar archive: …"."""


def tar_members(file: BinaryIO, size: int) -> Iterator[TarMember]:
    """Files of an archive of `size` bytes. Raises `BadTar`."""
    at, extended = 0, dict[str, str]()
    while at + BLOCK <= size:
        file.seek(at)
        header = file.read(BLOCK)
        if header == bytes(BLOCK):
            return
        length = _checked_size(header, at)
        kind = header[156:157]
        if kind in b"xgLK":
            if length > LONGEST_HEADER_BYTES:
                raise BadTar(f"a header of {length:,} bytes at byte {at}")
            extended |= _extension(kind, file.read(length)) if kind in b"xL" else {}
        else:
            length = _number(extended["size"]) if "size" in extended else length
            if at + BLOCK + length > size:
                raise BadTar("it is truncated")
            if kind in FILES and not header[:100].rstrip(b"\0").endswith(b"/"):
                name = extended.get("path") or _name(header)
                yield TarMember(name, length, at + BLOCK, header[136:148].decode("ascii", "replace"))
            extended = {}
        at += BLOCK + -(-length // BLOCK) * BLOCK
    if size % BLOCK:
        raise BadTar("it is truncated")


def _checked_size(header: bytes, at: int) -> int:
    try:
        expected = int(header[148:156].rstrip(b" \0") or b"0", 8)
        size = (
            int.from_bytes(header[125:136], "big")
            if header[124] & 0x80
            else int(header[124:136].rstrip(b" \0") or b"0", 8)
        )
    except ValueError:
        raise BadTar(f"there is no header at byte {at}") from None
    if sum(header) - sum(header[148:156]) + 8 * 32 != expected or size < 0:
        raise BadTar(f"there is no header at byte {at}")
    return size


def _name(header: bytes) -> str:
    name = header[:100].partition(b"\0")[0]
    prefix = header[345:500].partition(b"\0")[0] if header[257:263] == b"ustar\0" else b""
    return (prefix + b"/" + name if prefix else name).decode("utf-8", "replace")


def _extension(kind: bytes, content: bytes) -> dict[str, str]:
    if kind == b"L":
        return {"path": content.partition(b"\0")[0].decode("utf-8", "replace")}
    found: dict[str, str] = {}
    while content:
        length = _number(content[: content.find(b" ")].decode("ascii", "replace"))
        if not 4 <= length <= len(content):
            raise BadTar("a broken pax header")
        name, _, value = content[content.find(b" ") + 1 : length - 1].partition(b"=")
        if name in {b"path", b"size"}:  # one header after the other may fill the memory with anything else
            found[name.decode()] = value.decode("utf-8", "replace")
        content = content[length:]
    return found


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 20):
        raise BadTar("a broken pax header")
    return int(text)
