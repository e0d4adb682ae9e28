"""Where uploads lie in the store: a folder or a bucket. Every method raises a 507 problem when full, 503 when silent.

Nobody reads an upload before the book calls it ready, so files are written in place; `settle` makes them durable.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from api.store import Store, explained, full
from training_core.contract.uploads import DATA, LISTING, PARTS, UploadedFile, folder_of
from training_core.storage.whole_object import whole_object

COPY_BYTES = 4 << 20
SPARE_BYTES = 64 << 20
MANY_FILES = 500


class Vault:
    def __init__(self, store: Store) -> None:
        self._store = store

    def check_room(self, size: int) -> None:
        """Raises the 507 problem where `size` more bytes do not fit; a bucket has no end."""
        with explained():
            files, root = self._store.locate("", "")
            if isinstance(files, LocalFileSystem):
                there = next(path for path in (Path(root), *Path(root).parents) if path.exists())
                if shutil.disk_usage(there).free < size + SPARE_BYTES:
                    raise full()

    @contextmanager
    def create(self, dataset_id: str, path: str) -> Iterator[Any]:
        """A new file of any size, written piece by piece; after an error there is none."""
        files, place = self._store.locate(folder_of(dataset_id), path)
        with explained():
            if isinstance(files, LocalFileSystem):
                os.makedirs(os.path.dirname(place), exist_ok=True)
                with _local(place) as file:
                    yield file
            else:
                with whole_object(files, place) as file:
                    yield file

    def write(self, dataset_id: str, path: str, content: bytes) -> None:
        """A small file, in one go."""
        files, place = self._store.locate(folder_of(dataset_id), path)
        with explained():
            if isinstance(files, LocalFileSystem):
                os.makedirs(os.path.dirname(place), exist_ok=True)
                with _local(place) as file:
                    file.write(content)
            else:
                files.pipe_file(place, content)

    def is_bucket(self) -> bool:
        with explained():
            return not isinstance(self._store.locate("", "")[0], LocalFileSystem)

    def join(self, dataset_id: str, parts: Sequence[str], name: str) -> UploadedFile:
        """Put the parts' files together, in their order; raises a 404 problem where one is not there."""
        digest, size = hashlib.sha256(), 0
        with self.create(dataset_id, f"{DATA}/{name}") as target:
            for part in parts:
                with self._store.open(folder_of(dataset_id), f"{PARTS}/{part}") as file:
                    while piece := file.read(COPY_BYTES):
                        digest.update(piece)
                        size += len(piece)
                        target.write(piece)
        return UploadedFile(path=name, size=size, sha256=digest.hexdigest())

    def settle(self, dataset_id: str, listed: Sequence[UploadedFile]) -> None:
        """Write the listing, and have all survive a power cut."""
        lines = sorted(listed, key=lambda one: one.path.encode())
        with self.create(dataset_id, LISTING) as file:
            for one in lines:
                file.write(one.model_dump_json().encode() + b"\n")
        files, place = self._store.locate(folder_of(dataset_id), "")
        with explained():
            if isinstance(files, LocalFileSystem):
                _make_durable(place, many=len(listed) > MANY_FILES)

    def delete(self, dataset_id: str, path: str = "") -> None:
        """The whole upload, or what is at `path` in it; nothing there is fine."""
        files, place = self._store.locate(folder_of(dataset_id), path)
        with explained(), suppress(FileNotFoundError):
            if isinstance(files, LocalFileSystem):
                Path(place).unlink() if os.path.isfile(place) else shutil.rmtree(place)
            else:
                files.invalidate_cache()
                files.rm(place, recursive=True)


class Writing:
    """A file that is written over several calls, from any thread; after an error or `abandon` there is none."""

    def __init__(self, vault: Vault, dataset_id: str, path: str) -> None:
        self._block = ExitStack()
        self._file = self._block.enter_context(vault.create(dataset_id, path))

    def write(self, piece: bytes) -> None:
        try:
            self._file.write(piece)
        except BaseException as error:
            self._block.__exit__(type(error), error, error.__traceback__)
            raise

    def close(self) -> None:
        self._block.close()

    def abandon(self) -> None:
        """Also after an error, or when it was closed."""
        self._block.__exit__(_Abandoned, _Abandoned(), None)


class _Abandoned(Exception):
    pass


@contextmanager
def _local(place: str) -> Iterator[Any]:
    try:
        with open(place, "wb") as file:
            yield file
    except BaseException:
        Path(place).unlink(missing_ok=True)
        raise


def _make_durable(folder: str, *, many: bool) -> None:
    if many:
        os.sync()
        return
    for where, _, names in os.walk(folder):
        for path in (*(os.path.join(where, name) for name in names), where):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
