"""Reads checkpoints, artifacts and data reports out of the store.

All that it writes there are the marks of pins, and all that it deletes are checkpoints of trials that cannot go on.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import fsspec
from botocore.exceptions import BotoCoreError
from fastapi.responses import StreamingResponse
from fsspec.implementations.local import LocalFileSystem

from api.errors import Code, Problem
from api.settings import Settings

PIECE_BYTES = 1 << 20
# A client that is told "later" asks again; a thread of ours that waits for a dead bucket serves nobody.
BOUNDED = {"connect_timeout": 3, "read_timeout": 10, "retries": {"max_attempts": 1}}


class ByteRange(NamedTuple):
    """Half open: bytes `start` to `end - 1`."""

    start: int
    end: int


class Store:
    """The operator's folder or bucket. Every path is checked to stay below it."""

    def __init__(self, settings: Settings) -> None:
        self._uri, self._credentials = settings.store.rstrip("/"), settings.store_credentials_file

    def open(self, folder: str, name: str) -> Any:
        """A binary file; raises a 404 problem when it is gone and a 503 when the store is silent."""
        with _explained():
            files, path = self._locate(folder, name)
            return files.open(path, "rb")

    def tag(self, folder: str, name: str) -> str:
        """An ETag, which changes whenever the file does. Ask before you open: then it is never newer than the bytes."""
        with _explained():
            files, path = self._locate(folder, name)
            return f'"{files.ukey(path)[:32]}"'

    def mark(self, folder: str, name: str) -> None:
        """An empty file in a folder that is there already."""
        with _explained():
            files, path = self._locate(folder, name)
            if not files.isdir(path.rpartition("/")[0]):
                raise _gone()
            files.pipe_file(path, b"")

    def unmark(self, folder: str, name: str) -> None:
        """Without the file, whether or not it was there."""
        with _explained():
            files, path = self._locate(folder, name)
            with suppress(FileNotFoundError):
                files.rm_file(path)

    def delete_checkpoint(self, job_id: str, trial: int, folder: str, *, first: str, unless: str) -> bool:
        """Remove a checkpoint's folder, its file `first` before the others; False when a file `unless` keeps it.

        A folder that is gone already counts as removed, but not with the whole store, which is a 503 problem. Raises
        `Misplaced` for any path that is not exactly that of a checkpoint of this trial, or that a link leads elsewhere.
        """
        if re.fullmatch(rf"jobs/{re.escape(job_id)}/trial-{trial}/attempt-\d+/step-\d+", folder) is None:
            raise Misplaced(folder)
        with _explained(), suppress(FileNotFoundError):
            files, path = self._locate(folder, "")
            files.invalidate_cache()
            if isinstance(files, LocalFileSystem):
                _check_real(path, folder)
            if files.exists(f"{path}/{unless}"):
                return False
            with suppress(FileNotFoundError):
                files.rm_file(f"{path}/{first}")
            files.rm(path, recursive=True)
        return True

    def _locate(self, folder: str, name: str) -> tuple[Any, str]:
        parts = PurePosixPath(folder, name).parts
        if any(part in ("..", "/") or "\\" in part for part in parts):
            raise _gone()
        files, path = fsspec.core.url_to_fs(f"{self._uri}/{'/'.join(parts)}", **self._options())
        return files, str(path)

    def _options(self) -> dict[str, Any]:
        if not self._uri.startswith("s3://"):
            return {}
        if self._credentials is None:
            return {"config_kwargs": BOUNDED}
        secret = json.loads(self._credentials.read_text())["store"]
        options = {name: secret[name] for name in ("key", "secret", "token") if name in secret}
        return options | {"client_kwargs": {"endpoint_url": secret.get("endpoint_url")}, "config_kwargs": BOUNDED}


class Misplaced(Exception):
    """A path in the book that is not where the job's checkpoints lie; nothing there was touched."""


def _check_real(path: str, folder: str) -> None:
    """Raises `Misplaced` where a link below the store's root leads away from it, `OSError` where there is no store."""
    root = os.path.realpath(path.removesuffix(folder))
    if not os.path.isdir(root):
        raise NotADirectoryError(root)
    if os.path.realpath(path) != os.path.join(root, folder):
        raise Misplaced(folder)


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise _gone() from None
    except (OSError, BotoCoreError) as error:
        detail = f"The store does not answer ({type(error).__name__})"
        raise Problem(503, Code.STORE_UNREACHABLE, detail, retryable=True, headers={"Retry-After": "5"}) from None


def send(
    file: Any, size: int, media_type: str, *, range_header: str | None = None, headers: dict[str, str] | None = None
) -> StreamingResponse:
    """The whole file, or the one range of it that `range_header` asks for; raises a 416 problem."""
    try:
        span = parse_range(range_header, size)
    except Problem:
        file.close()
        raise
    sent = span or ByteRange(0, size)
    headers = {**(headers or {}), "Accept-Ranges": "bytes", "Content-Length": str(sent.end - sent.start)}
    if span is not None:
        headers["Content-Range"] = f"bytes {span.start}-{span.end - 1}/{size}"
    return StreamingResponse(pieces(file, sent), 200 if span is None else 206, headers, media_type)


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
    return Problem(404, Code.NOT_FOUND, "This file is not in the store any more")
