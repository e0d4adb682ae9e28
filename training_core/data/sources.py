"""Opens a dataset URI through fsspec and lists and reads its files, within the bounds that the run allows.

A URI is one link (`file://`, `s3://`) or an archive over one (`zip://inner::file://pets.zip`).
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import fsspec

from training_core.data.credentials import Credentials, read_credentials
from training_core.failure import Failed
from training_core.rundir import RunSpec
from training_core.wire import Reason

LARGEST_FILE_BYTES = 64 * 2**20
READ_TOGETHER = 64


@dataclass(frozen=True)
class Entry:
    """A file: its path below the source with `/`, size in bytes, and what tells another content of the same size."""

    path: str
    size: int
    fingerprint: str


class Source(Protocol):
    uri: str

    def entries(self) -> list[Entry]:
        """All files, sorted by path."""
        ...

    def read(self, paths: list[str]) -> Iterator[tuple[str, bytes | Exception]]:
        """Content of each path in turn, or the error that reading it alone brought."""
        ...


def open_source(run: RunSpec) -> Source:
    """Raises `Failed` with a reason of the dataset or of its credentials."""
    dataset = run.spec.dataset
    credentials = read_credentials(run.credentials_file, dataset.credentials)
    links = [_parse(link) for link in dataset.uri.split("::")]
    with reading(dataset.uri):
        match links:
            case [("file", path)]:
                return FolderSource(dataset.uri, allowed_path(path, run.data_roots), run.data_roots)
            case [("s3", path)]:
                return ObjectSource(dataset.uri, path, credentials)
            case [("zip", inner), ("file", path)]:
                return ZipSource(
                    dataset.uri, inner, str(allowed_path(path, run.data_roots)), {"target_protocol": "file"}
                )
            case [("zip", inner), ("s3", path)]:
                over = {"target_protocol": "s3", "target_options": credentials.s3_options()}
                return ZipSource(dataset.uri, inner, path, over)
    raise Failed(
        Reason.UNSUPPORTED,
        f"the dataset URI {dataset.uri!r} is not one that can be read",
        "use file://folder, s3://bucket/folder, or zip://::file://archive.zip (or ::s3://…)",
    )


def _parse(link: str) -> tuple[str, str]:
    scheme, separator, path = link.partition("://")
    if not separator:
        scheme, path = link, ""
    return scheme, path.rstrip("*").rstrip("/") if scheme == "zip" else path


def allowed_path(path: str, roots: list[Path]) -> Path:
    """The real path behind `path`, relative ones from the first root.

    Raises `Failed(dataset_forbidden)` outside the roots.
    """
    if not roots:
        raise Failed(
            Reason.DATASET_FORBIDDEN,
            f"file://{path} may not be read: this worker allows no local folders",
            "the operator can allow some with data_roots",
        )
    real = Path(os.path.realpath(roots[0] / path))
    if not is_allowed(real, roots):
        raise Failed(
            Reason.DATASET_FORBIDDEN,
            f"file://{path} lies outside the folders that this worker may read",
            "move the data below one of the worker's data roots, or have the operator add its folder to them",
        )
    return real


def is_allowed(real: Path, roots: list[Path]) -> bool:
    return any(real.is_relative_to(os.path.realpath(root)) for root in roots)


class reading:  # noqa: N801  reads as the word it is: `with reading(uri):`
    """Turns what file systems raise into `Failed`; messages are our own, since theirs may quote requests."""

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None or isinstance(error, Failed) or not isinstance(error, Exception):
            return
        failure = failure_of(error, self.uri)
        if failure is not None:
            raise failure from error


def failure_of(error: Exception, what: str) -> Failed | None:
    """None for an error that has nothing to do with reading."""
    module = type(error).__module__.partition(".")[0]
    if isinstance(error, zipfile.BadZipFile):
        return Failed(
            Reason.DATASET_INVALID, f"{what} is not a readable zip archive", "check that the upload is complete"
        )
    if isinstance(error, PermissionError) or type(error).__name__ in {"NoCredentialsError", "TokenRetrievalError"}:
        return Failed(
            Reason.DATASET_FORBIDDEN,
            f"access to {what} was refused",
            "check the permissions, and that dataset.credentials names credentials that may read it",
        )
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return Failed(Reason.DATASET_UNREACHABLE, f"there is nothing at {what}", "check the spelling of dataset.uri")
    if isinstance(error, OSError | TimeoutError) or module in {"botocore", "aiobotocore", "aiohttp", "fsspec", "s3fs"}:
        return Failed(
            Reason.DATASET_UNREACHABLE,
            f"{what} could not be read ({type(error).__name__})",
            "check that the store answers from the worker's host, and its endpoint_url",
        )
    return None


class FolderSource:
    """A local folder. Symbolic links are followed as long as they stay below the roots."""

    def __init__(self, uri: str, folder: Path, roots: list[Path]) -> None:
        self.uri, self._folder, self._roots = uri, folder, roots
        self._fs = fsspec.filesystem("file")
        if not folder.is_dir():
            raise FileNotFoundError(folder)

    def entries(self) -> list[Entry]:
        found = []
        visited: set[str] = set()
        for directory, folders, files in os.walk(self._folder, followlinks=True, onerror=_raise):
            real = os.path.realpath(directory)
            if real in visited:  # a link back to a parent would never end
                folders.clear()
                continue
            visited.add(real)
            for name in files:
                path = Path(directory, name)
                self._check(path)
                status = path.stat()
                relative = path.relative_to(self._folder).as_posix()
                found.append(Entry(relative, status.st_size, str(status.st_mtime_ns)))
        return sorted(found, key=lambda entry: entry.path)

    def _check(self, path: Path) -> None:
        if not is_allowed(Path(os.path.realpath(path)), self._roots):
            raise Failed(
                Reason.DATASET_FORBIDDEN,
                f"{path.relative_to(self._folder)} is a link to a place outside the folders that may be read",
                "copy the file into the dataset",
            )

    def read(self, paths: list[str]) -> Iterator[tuple[str, bytes | Exception]]:
        for path in paths:
            self._check(self._folder / path)
            yield path, self._fs.cat_file(str(self._folder / path))


def _raise(error: OSError) -> None:
    raise error


class ZipSource:
    """A folder inside a zip archive that lies on another file system."""

    def __init__(self, uri: str, inner: str, archive: str, over: dict[str, Any]) -> None:
        self.uri, self._inner = uri, inner.strip("/")
        self._fs = fsspec.filesystem("zip", fo=archive, skip_instance_cache=True, **over)

    def entries(self) -> list[Entry]:
        prefix = f"{self._inner}/" if self._inner else ""
        found = {}
        for member in self._fs.zip.infolist():
            name = member.filename
            if name.startswith("/") or ".." in PurePosixPath(name).parts or "\\" in name or ":" in name.split("/")[0]:
                raise Failed(
                    Reason.DATASET_INVALID,
                    f"{name!r} in {self.uri} is not a safe name for a file",
                    "make the archive again with names relative to its root",
                )
            if member.flag_bits & 1:
                raise Failed(
                    Reason.DATASET_INVALID, f"{name!r} in {self.uri} is encrypted", "store it without a password"
                )
            if not member.is_dir() and name.startswith(prefix):
                relative = name.removeprefix(prefix)
                found[relative] = Entry(relative, member.file_size, f"crc-{member.CRC:08x}")
        return sorted(found.values(), key=lambda entry: entry.path)

    def read(self, paths: list[str]) -> Iterator[tuple[str, bytes | Exception]]:
        for path in paths:
            try:
                yield path, self._fs.cat_file(f"{self._inner}/{path}" if self._inner else path)
            except (zipfile.BadZipFile, EOFError, NotImplementedError) as problem:
                yield path, problem


class ObjectSource:
    """A prefix in an S3 bucket; reads several objects at once."""

    def __init__(self, uri: str, path: str, credentials: Credentials) -> None:
        self.uri, self._path = uri, path.strip("/")
        self._fs = fsspec.filesystem("s3", **credentials.s3_options())

    def entries(self) -> list[Entry]:
        listing = self._fs.find(self._path, detail=True)
        if not listing and not self._fs.exists(self._path.split("/", 1)[0]):
            raise FileNotFoundError(self._path)
        found = []
        for key, info in listing.items():
            fingerprint = str(info.get("ETag") or info.get("LastModified") or "")
            found.append(Entry(key.removeprefix(self._path).lstrip("/"), int(info["size"]), fingerprint))
        return sorted((entry for entry in found if entry.path), key=lambda entry: entry.path)

    def read(self, paths: list[str]) -> Iterator[tuple[str, bytes | Exception]]:
        for start in range(0, len(paths), READ_TOGETHER):
            keys = {f"{self._path}/{path}": path for path in paths[start : start + READ_TOGETHER]}
            contents = self._fs.cat(list(keys), on_error="return") if len(keys) > 1 else None
            for key, path in keys.items():
                content = self._fs.cat_file(key) if contents is None else contents[key]
                if isinstance(content, Exception):
                    raise content
                yield path, content
