"""Downloads out of the store, for all routes alike: RFC 9110 (conditions, ranges, HEAD) and RFC 9530 (Repr-Digest).

The ETag is the sha256 of the file, so that it is strong: two files of one tag are the same to the byte.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated, Any, NamedTuple
from urllib.parse import quote

from fastapi import Depends, Header, Request, Response
from fastapi.responses import StreamingResponse

from api.digests import Digests, Found
from api.errors import Code, Problem
from api.store import Store

PIECE_BYTES = 1 << 20
# A smaller file is hashed before its first byte goes out, a larger one while it does.
HASHED_FIRST_BYTES = 64 << 20


class ByteRange(NamedTuple):
    """Half open: bytes `start` to `end - 1`."""

    start: int
    end: int


@dataclass(frozen=True)
class Asked:
    """What a request says of the copy that its client has, and which part of the file it wants."""

    head: bool = False
    if_none_match: str | None = None
    range: str | None = None
    if_range: str | None = None


@dataclass(frozen=True)
class Kept:
    """A file as the book knows it, by the report of the process that wrote it. Old rows do not know every sha256."""

    size: int
    sha256: str | None


def _asked(
    request: Request,
    if_none_match: Annotated[str | None, Header(max_length=4000, description="ETags of copies at hand")] = None,
    range_header: Annotated[str | None, Header(alias="Range", max_length=200, description="`bytes=first-last`")] = None,
    if_range: Annotated[str | None, Header(max_length=200, description="the ETag that the range continues")] = None,
) -> Asked:
    return Asked(request.method == "HEAD", if_none_match, range_header, if_range)


Conditions = Annotated[Asked, Depends(_asked)]


def download(
    store: Store, asked: Asked, folder: str, name: str, media_type: str,
    *, kept: Kept | None = None, save_as: str | None = None,
) -> Response:  # fmt: skip
    """One file, whole or the range that was asked for.

    With `kept`, nothing but that content goes out: a file of another size or sha256 is a 409 problem, or where it is
    too large to be hashed first, an answer that breaks off before its end.
    """
    found = store.look(folder, name)
    if kept is not None and found.size != kept.size:
        raise changed(name)
    known = kept.sha256 if kept is not None and kept.sha256 is not None else store.sha256(folder, name)
    headers = {**_headers(known), **({"Content-Disposition": attachment(save_as)} if save_as else {})}
    if is_known(headers["ETag"], asked.if_none_match):
        return Response(status_code=304, headers=headers)
    if asked.head:
        headers |= {"Accept-Ranges": "bytes", "Content-Length": str(found.size)}
        return Response(headers=headers, media_type=media_type)
    span = None
    if asked.if_range is None or asked.if_range.strip() == headers["ETag"]:
        span = parse_range(asked.range, found.size)
    file = store.open(folder, name)
    try:
        pieces = _sound(store.digests, file, found, known, span)
    except BaseException:
        file.close()
        raise
    return _stream(pieces, found.size, span, media_type, headers)


def send_bytes(content: bytes, asked: Asked, media_type: str) -> Response:
    """What was made for this request, such as a report without its pictures; whole."""
    headers = _headers(hashlib.sha256(content).hexdigest())
    if is_known(headers["ETag"], asked.if_none_match):
        return Response(status_code=304, headers=headers)
    return Response(b"" if asked.head else content, 200, headers | {"Content-Length": str(len(content))}, media_type)


def changed(name: str) -> Problem:
    detail = f"{name} in the store is not the file that was written there; nothing of it was sent"
    hint = "Take another checkpoint or artifact; the operator can say who changed the store, or repair it"
    return Problem(409, Code.FILE_CHANGED, detail, hint=hint)


def attachment(name: str) -> str:
    """A Content-Disposition that no name breaks (RFC 6266): ASCII, and the name itself where it is more."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", name)[-200:]
    full = "" if plain == name else f"; filename*=UTF-8''{quote(name, safe='', errors='replace')}"
    return f'attachment; filename="{plain}"{full}'


def is_known(tag: str, if_none_match: str | None) -> bool:
    """Whether a list of ETags, or `*`, covers `tag`; by the weak comparison, as for every If-None-Match."""
    if if_none_match is None:
        return False
    return if_none_match.strip() == "*" or tag in re.findall(r'"[^"]*"', if_none_match)


def parse_range(header: str | None, size: int) -> ByteRange | None:
    """The one range of a `Range` header; None for the whole: several ranges, other units, a last before the first."""
    found = re.fullmatch(r"bytes=\s*(\d{0,18})-(\d{0,18})\s*", (header or "").strip(), re.IGNORECASE)
    if found is None or not (found[1] or found[2]) or (found[1] and found[2] and int(found[2]) < int(found[1])):
        return None
    first, last = found[1], found[2]
    if first:
        span = ByteRange(int(first), min(int(last) + 1, size) if last else size)
    else:
        span = ByteRange(max(0, size - int(last)), size)
    if span.start >= span.end:
        headers = {"Content-Range": f"bytes */{size}"}
        raise Problem(416, Code.RANGE_NOT_SATISFIABLE, f"The file has {size} bytes", headers=headers)
    return span


def _headers(sha256: str) -> dict[str, str]:
    digest = base64.b64encode(bytes.fromhex(sha256)).decode()
    return {"ETag": f'"{sha256}"', "Repr-Digest": f"sha-256=:{digest}:", "Cache-Control": "private, no-cache"}


def _sound(digests: Digests, file: Any, found: Found, known: str, span: ByteRange | None) -> Iterator[bytes]:
    """The bytes of `span` of a file whose sha256 is `known`; raises `changed` where it is another."""
    if digests.get(found) is None and span is None and found.size > HASHED_FIRST_BYTES:
        return _hashed(digests, file, found, known)
    if digests.of(found, file) != known:
        raise changed(PurePosixPath(found.path).name)
    return _pieces(file, span or ByteRange(0, found.size))


def _pieces(file: Any, span: ByteRange) -> Iterator[bytes]:
    with file:
        file.seek(span.start)
        left = span.end - span.start
        while left > 0 and (piece := file.read(min(PIECE_BYTES, left))):
            left -= len(piece)
            yield piece


def _hashed(digests: Digests, file: Any, found: Found, known: str) -> Iterator[bytes]:
    """The whole file; its last piece goes out only where all before it and it are what they should be."""
    digest, held = hashlib.sha256(), b""
    for piece in _pieces(file, ByteRange(0, found.size)):
        yield held
        digest.update(piece)
        held = piece
    digests.keep(found, digest.hexdigest())
    if digest.hexdigest() != known:
        raise BrokenOff(f"{found.path} is not what was written; its download was broken off")
    yield held


class BrokenOff(Exception):
    """The rest of a download is not sent: the client sees that its end is missing."""


def _stream(
    pieces: Iterator[bytes], size: int, span: ByteRange | None, media_type: str, headers: dict[str, str]
) -> StreamingResponse:
    sent = span or ByteRange(0, size)
    headers = {**headers, "Accept-Ranges": "bytes", "Content-Length": str(sent.end - sent.start)}
    if span is not None:
        headers["Content-Range"] = f"bytes {span.start}-{span.end - 1}/{size}"
    return StreamingResponse(pieces, 200 if span is None else 206, headers, media_type)
