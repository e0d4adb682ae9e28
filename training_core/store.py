"""The place of checkpoints: a folder or an S3 prefix, through fsspec."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import Protocol

import fsspec

from training_core.data.credentials import Credentials, read_all
from training_core.failure import Failed
from training_core.rundir import RunSpec, write_atomically
from training_core.wire import Reason

STORE_CREDENTIALS = "store"


class Store(Protocol):
    """Paths are relative, with `/`. A written file is complete and durable, or it is not there."""

    def write(self, path: str, content: bytes) -> None: ...

    def read(self, path: str) -> bytes:
        """Raises `FileNotFoundError`."""
        ...

    def find(self, folder: str, name: str) -> list[str]:
        """Paths of all files called `name` below `folder`, sorted; empty when the folder does not exist."""
        ...

    def delete(self, folder: str, first: str) -> None:
        """Remove a folder with all its files, the one called `first` before all others; none there is fine.

        `first` is what makes the folder complete: a deletion that is cut short leaves nothing that looks whole.
        """
        ...


def open_store(run: RunSpec) -> Store:
    """Raises `Failed(unsupported)` for any other scheme than `file://` and `s3://`."""
    scheme, separator, path = run.store.partition("://")
    if scheme == "file" or not separator:
        return FolderStore(Path(path if separator else scheme))
    if scheme == "s3":
        return ObjectStore(path, read_all(run.credentials_file).get(STORE_CREDENTIALS, Credentials(anonymous=True)))
    raise Failed(Reason.UNSUPPORTED, f"a store of the kind {scheme}:// is not supported", "use file:// or s3://")


def check_relative(path: str) -> str:
    """Raises `Failed(checkpoint_invalid)` for a path that would leave the store."""
    if path.startswith("/") or ".." in PurePosixPath(path).parts:
        raise Failed(Reason.CHECKPOINT_INVALID, f"{path!r} is not a path within the store")
    return path.strip("/")


class FolderStore:
    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        self._fs = fsspec.filesystem("file")

    def write(self, path: str, content: bytes) -> None:
        target = self._root / check_relative(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, content)

    def read(self, path: str) -> bytes:
        return bytes(self._fs.cat_file(str(self._root / check_relative(path))))

    def find(self, folder: str, name: str) -> list[str]:
        top = self._root / check_relative(folder)
        found = [Path(where, name) for where, _, files in os.walk(top) if name in files]
        return sorted(path.relative_to(self._root).as_posix() for path in found)

    def delete(self, folder: str, first: str) -> None:
        target = self._root / check_relative(folder)
        (target / first).unlink(missing_ok=True)
        if target.exists():
            self._fs.rm(str(target), recursive=True)


class ObjectStore:
    def __init__(self, root: str, credentials: Credentials) -> None:
        self._root = root.strip("/")
        self._fs = fsspec.filesystem("s3", **credentials.s3_options())

    def write(self, path: str, content: bytes) -> None:
        self._fs.pipe_file(self._key(path), content)

    def read(self, path: str) -> bytes:
        return bytes(self._fs.cat_file(self._key(path)))

    def find(self, folder: str, name: str) -> list[str]:
        keys = self._fs.find(self._key(folder))
        return sorted(key.removeprefix(f"{self._root}/") for key in keys if key.rsplit("/", 1)[-1] == name)

    def delete(self, folder: str, first: str) -> None:
        keys = self._fs.find(self._key(folder))
        leading = [key for key in keys if key == self._key(f"{folder}/{first}")]
        for part in (leading, [key for key in keys if key not in leading]):
            if part:
                self._fs.rm(part)

    def _key(self, path: str) -> str:
        return f"{self._root}/{check_relative(path)}"
