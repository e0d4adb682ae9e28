"""Reads checkpoint files out of the store for a download. The store is written by the training alone."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import fsspec

from api.errors import Code, Problem
from api.settings import Settings

PIECE_BYTES = 1 << 20


class ByteRange(NamedTuple):
    """Half open: bytes `start` to `end - 1`."""

    start: int
    end: int


class Store:
    """The operator's folder or bucket. Every path is checked to stay below it."""

    def __init__(self, settings: Settings) -> None:
        self._uri, self._credentials = settings.store.rstrip("/"), settings.store_credentials_file

    def open(self, checkpoint_path: str, name: str) -> Any:
        """A binary file of a checkpoint; raises a 404 problem when it is gone and a 503 when the store is silent."""
        parts = PurePosixPath(checkpoint_path, name).parts
        if any(part in ("..", "/") or "\\" in part for part in parts):
            raise _gone()
        try:
            return fsspec.open(f"{self._uri}/{'/'.join(parts)}", "rb", **self._options()).open()
        except FileNotFoundError:
            raise _gone() from None
        except OSError as error:
            detail = f"The store does not answer ({type(error).__name__})"
            raise Problem(503, Code.STORE_UNREACHABLE, detail, retryable=True, headers={"Retry-After": "5"}) from None

    def _options(self) -> dict[str, Any]:
        if self._credentials is None or not self._uri.startswith("s3://"):
            return {}
        secret = json.loads(self._credentials.read_text())["store"]
        options = {name: secret[name] for name in ("key", "secret", "token") if name in secret}
        return options | {"client_kwargs": {"endpoint_url": secret.get("endpoint_url")}}


def pieces(file: Any, span: ByteRange) -> Iterator[bytes]:
    """The bytes of `span`; closes the file behind them."""
    with file:
        file.seek(span.start)
        left = span.end - span.start
        while left > 0 and (piece := file.read(min(PIECE_BYTES, left))):
            left -= len(piece)
            yield piece


def parse_range(header: str | None, size: int) -> ByteRange | None:
    """The one range of a `Range` header, None for the whole; several ranges, or units but bytes, get the whole."""
    found = re.fullmatch(r"bytes=(\d{0,18})-(\d{0,18})", (header or "").strip())
    if found is None or found[0] == "bytes=-":
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


def _gone() -> Problem:
    return Problem(404, Code.NOT_FOUND, "This file of the checkpoint is not in the store any more")
