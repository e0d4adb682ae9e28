"""Any other place that fsspec knows (Google, Azure, Hugging Face, DVC), where its package is installed."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import fsspec

from training_core.contract.errors import Failed, Reason
from training_core.contract.uris import Refused, check_endpoint
from training_core.contract.uris.links import DEFAULT_PORTS
from training_core.data.samples import IMAGE_SUFFIXES, Unreadable
from training_core.data.sources.ahead import Request, read_ahead
from training_core.data.sources.errors import is_missing, reading
from training_core.data.sources.ranges import open_ranges
from training_core.data.sources.retry import retried
from training_core.data.sources.source import (
    LARGEST_FILE_BYTES,
    TOO_LARGE,
    UNKNOWN_SIZE,
    VANISHED,
    Entry,
    Piece,
    Source,
    stamp_of,
)
from training_core.outgoing import Networks, check_host

PACKAGES = {"gs": "gcsfs", "az": "adlfs", "hf": "huggingface_hub", "dvc": "dvc"}
STAMPS = ("etag", "ETag", "md5", "md5Hash", "content_md5", "blob_id", "oid", "mtime", "last_modified", "updated")


def check_hosts(scheme: str, options: dict[str, Any], networks: Networks) -> None:
    """These clients open their connections themselves: all that can be done is to look where their host lies now.

    Raises `Denied`, and `Failed(unsupported)` for an endpoint that is none.
    """
    try:
        link = check_endpoint(endpoint_of(scheme, options))
    except Refused as refused:
        raise Failed(Reason.UNSUPPORTED, f"the endpoint in the secret for {scheme}:// is none: {refused}") from None
    check_host(link.host, link.port or DEFAULT_PORTS[link.scheme], networks)


def endpoint_of(scheme: str, options: dict[str, Any]) -> str:
    """Where the client of a scheme will go, as it reads its own options."""
    if scheme == "gs":
        return str(options.get("endpoint_url") or "https://storage.googleapis.com")
    if scheme == "hf":
        return str(options.get("endpoint") or os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    parts = dict(part.split("=", 1) for part in str(options.get("connection_string", "")).split(";") if "=" in part)
    if "BlobEndpoint" in parts:
        return parts["BlobEndpoint"]
    account = options.get("account_name") or parts.get("AccountName") or "anonymous"
    suffix = parts.get("EndpointSuffix", "core.windows.net")
    return f"https://{options.get('account_host') or f'{account}.blob.{suffix}'}"


def open_filesystem(scheme: str, options: dict[str, Any]) -> Any:
    """Raises `Failed(unsupported)` where its package is not installed."""
    try:
        return fsspec.filesystem(scheme, skip_instance_cache=True, use_listings_cache=False, **options)
    except (ImportError, ValueError) as problem:
        raise Failed(
            Reason.UNSUPPORTED,
            f"this worker cannot read {scheme}://, since {PACKAGES[scheme]} is not installed there",
            f"pip install {PACKAGES[scheme]} on the worker",
        ) from problem


class RemoteSource:
    """`path` is a folder, or one file."""

    def __init__(self, uri: str, filesystem: Any, path: str) -> None:
        self.uri, self._fs, self._only = uri, filesystem, ""
        self._path = path.strip("/")
        with reading(uri):
            if self._retried("isfile", self._path):
                self._path, _, self._only = self._path.rpartition("/")

    def entries(self) -> Iterator[Entry]:
        """A folder at a time, sorted by the bytes of their paths."""
        with reading(self.uri):
            if self._only:
                yield self._entry(self._only, self._retried("info", self._full(self._only)))
                return
            stack = [iter([("", {"type": "directory"})])]
            while stack:
                name, info = next(stack[-1], (None, {}))
                if name is None:
                    stack.pop()
                elif info["type"] == "directory":
                    stack.append(iter(self._children(name)))
                else:
                    yield self._entry(name, info)

    def _children(self, folder: str) -> list[tuple[str, dict[str, Any]]]:
        found = []
        for info in self._retried("ls", self._full(folder.rstrip("/")), detail=True):
            name = folder + info["name"].rstrip("/").rpartition("/")[2]
            found.append((name + "/" if info["type"] == "directory" else name, info))
        return sorted(found, key=lambda one: one[0])

    def _entry(self, name: str, info: dict[str, Any]) -> Entry:
        stamp = next((str(info[key]) for key in STAMPS if info.get(key)), "")
        size = info["size"]
        if size is None:
            size = UNKNOWN_SIZE if name.lower().endswith(IMAGE_SUFFIXES) else self._measured(name)
        return Entry(name, int(size), stamp_of(stamp))

    def _measured(self, name: str) -> int:
        """Of a manifest or a shard, which are few and read in parts."""
        with self._retried("open", self._full(name), "rb") as file:
            return int(file.seek(0, io.SEEK_END))

    def read(self, pieces: Iterable[Piece]) -> Iterator[bytes | Unreadable]:
        with reading(self.uri):
            yield from read_ahead(pieces, self._fetch)

    def beside(self) -> Source | None:
        return RemoteSource(self.uri, self._fs, self._path) if self._only else None

    def identity(self) -> str | None:
        return None

    def open(self, entry: Entry) -> BinaryIO:
        return open_ranges(self, entry)

    def _fetch(self, request: Request) -> bytes | Unreadable:
        path, stop = self._full(request.entry.path), request.stop + request.whole
        if request.unsized:
            stop = LARGEST_FILE_BYTES + 1
        try:
            content = self._retried("cat_file", path, start=request.start, end=stop)
        except Exception as problem:
            if is_missing(problem):
                return VANISHED
            raise
        return bytes(content) if len(content) <= LARGEST_FILE_BYTES else TOO_LARGE

    def _full(self, name: str) -> str:
        return f"{self._path}/{name}".strip("/")

    def _retried(self, method: str, *arguments: Any, **options: Any) -> Any:
        return retried(lambda: getattr(self._fs, method)(*arguments, **options))
