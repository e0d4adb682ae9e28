"""A local folder. Symbolic links are followed as long as they stay below the roots."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from training_core.contract.errors import Failed, Reason
from training_core.data.samples import Unreadable
from training_core.data.sources.ahead import Request, read_ahead
from training_core.data.sources.errors import reading
from training_core.data.sources.places import is_below, real_roots
from training_core.data.sources.private import PrivatePlaces
from training_core.data.sources.source import CHANGED, VANISHED, Entry, Piece, Source

THREADS = 4
FILES_TOGETHER = 32  # a task of one small file would cost more than the file
MASK = 2**64 - 1
# O_NONBLOCK: opening a pipe that somebody put there must not wait for its writer.
FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK


class FolderSource:
    """With `only`, the one file of that name; the folder around it stays readable."""

    def __init__(
        self, uri: str, folder: Path, roots: list[Path], only: str | None = None, private: PrivatePlaces | None = None
    ) -> None:
        self.uri, self._folder, self._roots, self._only = uri, str(folder), real_roots(roots), only
        self._private = private or PrivatePlaces()
        if not folder.is_dir():
            raise FileNotFoundError(folder)

    def entries(self) -> Iterator[Entry]:
        """Sorted by the bytes of their paths, a folder at a time: only names of the open folders are in memory."""
        if self._only is not None:
            yield from filter(None, [self._entry(self._only)])
            return
        seen: set[tuple[int, int]] = set()
        self._enter("", seen)
        stack = [self._names("")]
        while stack:
            name = next(stack[-1], None)
            if name is None:
                stack.pop()
            elif not name.endswith("/"):
                entry = self._entry(name)
                if entry is not None:
                    yield entry
            elif self._enter(name, seen):
                stack.append(self._names(name))

    def _names(self, folder: str) -> Iterator[str]:
        with os.scandir(f"{self._folder}/{folder}") as found:
            names = [entry.name + "/" if entry.is_dir() else entry.name for entry in found]
        names.sort()
        return (folder + name for name in names)

    def _enter(self, folder: str, seen: set[tuple[int, int]]) -> bool:
        """False for a folder that was entered before: a link back to a parent would never end; and for one of ours."""
        path = f"{self._folder}/{folder}".rstrip("/")
        if os.path.islink(path):
            self._check(os.path.realpath(path), folder.rstrip("/"))
            self._private.check_folder(os.path.realpath(path), folder.rstrip("/"))
        elif self._private.has_folder(os.path.realpath(path)):
            return False
        status = os.stat(path)
        key = (status.st_dev, status.st_ino)
        return key not in seen and not seen.add(key)  # type: ignore[func-returns-value]

    def _entry(self, name: str) -> Entry | None:
        """None for what is no regular file, and for a link to nothing."""
        path = f"{self._folder}/{name}"
        try:
            status = os.lstat(path)
            if stat.S_ISLNK(status.st_mode):
                self._check(os.path.realpath(path), name)
                status = os.stat(path)
        except FileNotFoundError:
            return None
        return Entry(name, status.st_size, status.st_mtime_ns & MASK) if stat.S_ISREG(status.st_mode) else None

    def _check(self, real: str, name: str) -> None:
        if not is_below(real, self._roots):
            raise Failed(
                Reason.DATASET_FORBIDDEN,
                f"{name} is a link to a place outside the folders that may be read",
                "copy the file into the dataset",
            )

    def find(self, paths: Iterable[str]) -> Iterator[Entry | None]:
        return map(self._found, paths)

    def _found(self, path: str) -> Entry | None:
        try:
            self._private.check_folder(os.path.realpath(os.path.dirname(f"{self._folder}/{path}")), path)
            return self._entry(path)
        except (NotADirectoryError, ValueError):
            return None
        except OSError as problem:
            if problem.errno in {errno.ENAMETOOLONG, errno.ELOOP}:
                return None
            raise

    def read(self, pieces: Iterable[Piece]) -> Iterator[bytes | Unreadable]:
        with reading(self.uri):
            yield from read_ahead(pieces, self._fetch, requests=THREADS, together=FILES_TOGETHER)

    def _fetch(self, request: Request) -> bytes | Unreadable:
        entry = request.entry
        try:
            descriptor, before = self._open(entry.path)
            try:
                if (before.st_size, before.st_mtime_ns & MASK) != (entry.size, entry.stamp):
                    return CHANGED
                content = os.pread(descriptor, request.stop - request.start, request.start)
                after = os.fstat(descriptor)
            finally:
                os.close(descriptor)
        except (FileNotFoundError, NotADirectoryError):
            return VANISHED
        except OSError as problem:
            if isinstance(problem, PermissionError):
                raise
            return Unreadable(f"the disk answered: {problem.strerror}")
        return content if after.st_mtime_ns & MASK == entry.stamp else CHANGED

    def _open(self, name: str) -> tuple[int, os.stat_result]:
        """Checked after it was opened: no link put in place in between leads out."""
        descriptor = os.open(f"{self._folder}/{name}", FLAGS)
        try:
            real, status = os.readlink(f"/proc/self/fd/{descriptor}"), os.fstat(descriptor)
            self._check(real, name)
            self._private.check_file(real, status, name)
            if not stat.S_ISREG(status.st_mode):
                raise FileNotFoundError(name)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor, status

    def beside(self) -> Source | None:
        return None

    def identity(self) -> str | None:
        return None

    def open(self, entry: Entry) -> BinaryIO:
        with reading(self.uri):
            return open(self._open(entry.path)[0], "rb")
