"""The place of checkpoints: a folder or an S3 prefix, through fsspec."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path, PurePosixPath
from typing import Protocol

import fsspec

from training_core.contract.errors import Failed, Reason
from training_core.contract.run_dir import RunSpec, make_durable, new_file
from training_core.storage.credentials import Credentials, read_all
from training_core.storage.whole_object import whole_object

STORE_CREDENTIALS = "store"


class Sink(Protocol):
    """What a file is written into, piece by piece."""

    def write(self, piece: bytes | memoryview, /) -> object: ...


class Store(Protocol):
    """Paths are relative, with `/`. A written file is complete, or it is not there.

    It is durable too, unless a whole folder is to be so at once, by `complete`: a disk is waited for once then, and not
    for each file.
    """

    def write(self, path: str, content: bytes, *, durable: bool = True) -> None: ...

    def create(self, path: str, *, durable: bool = True) -> AbstractContextManager[Sink]:
        """A file of any size, there when the block has ended without an error."""
        ...

    def complete(self, folder: str, name: str, content: bytes) -> None:
        """Write the file that makes `folder` complete, after all others in it have become durable."""
        ...

    def exists(self, path: str) -> bool: ...

    def folders(self, folder: str) -> list[str]:
        """Paths of all folders below `folder` that hold no other, or files, sorted; none when it does not exist."""
        ...

    def free_bytes(self) -> int | None:
        """None where nobody knows."""
        ...

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
    """That of a run. Raises what `store_at` raises."""
    return store_at(run.store, run.store_credentials_file)


def store_at(uri: str, credentials_file: Path | None) -> Store:
    """Raises `Failed(unsupported)` for any other scheme than `file://` and `s3://`."""
    scheme, separator, path = uri.partition("://")
    if scheme == "file" or not separator:
        return FolderStore(Path(path if separator else scheme))
    if scheme == "s3":
        return ObjectStore(path, read_all(credentials_file).get(STORE_CREDENTIALS, Credentials(anonymous=True)))
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

    def write(self, path: str, content: bytes, *, durable: bool = True) -> None:
        with new_file(self._place(path), durable=durable) as file:
            file.write(content)

    def create(self, path: str, *, durable: bool = True) -> AbstractContextManager[Sink]:
        return new_file(self._place(path), durable=durable)

    def _place(self, path: str) -> Path:
        place = self._root / check_relative(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        return place

    def complete(self, folder: str, name: str, content: bytes) -> None:
        for file in sorted((self._root / check_relative(folder)).iterdir()):
            make_durable(file)
        self.write(f"{folder}/{name}", content)

    def exists(self, path: str) -> bool:
        return (self._root / check_relative(path)).exists()

    def folders(self, folder: str) -> list[str]:
        """Empty ones too: who was killed before the first file, or behind the last one that he deleted, leaves such."""
        top = self._root / check_relative(folder)
        found = [Path(where) for where, inside, files in os.walk(top) if files or (not inside and where != str(top))]
        return sorted(path.relative_to(self._root).as_posix() for path in found)

    def free_bytes(self) -> int | None:
        there = next(path for path in (self._root, *self._root.parents) if path.exists())
        return shutil.disk_usage(there).free

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

    def write(self, path: str, content: bytes, *, durable: bool = True) -> None:  # noqa: ARG002  all are
        self._fs.pipe_file(self._key(path), content)

    def complete(self, folder: str, name: str, content: bytes) -> None:
        self.write(f"{folder}/{name}", content)

    @contextmanager
    def create(self, path: str, *, durable: bool = True) -> Iterator[Sink]:  # noqa: ARG002
        """S3 shows the object when its last block is there, or never."""
        with whole_object(self._fs, self._key(path)) as file:
            yield file

    def exists(self, path: str) -> bool:
        self._fs.invalidate_cache()
        return bool(self._fs.exists(self._key(path)))

    def folders(self, folder: str) -> list[str]:
        self._fs.invalidate_cache()
        keys = self._fs.find(self._key(folder))
        return sorted({key.removeprefix(f"{self._root}/").rpartition("/")[0] for key in keys})

    def free_bytes(self) -> int | None:
        return None

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
