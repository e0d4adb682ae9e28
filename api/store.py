"""Reads checkpoints, artifacts and data reports out of the store.

All that it writes there are the marks of pins, and all that it deletes are checkpoints of trials that cannot go on;
`api.uploads.vault` writes uploads through it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import PurePosixPath
from typing import Any

import fsspec
from botocore.exceptions import BotoCoreError
from fsspec.implementations.local import LocalFileSystem

from api.digests import Digests, Found
from api.errors import Code, Problem
from api.settings import Settings

FULL = (errno.ENOSPC, errno.EDQUOT)
# A client that is told "later" asks again; a thread of ours that waits for a dead bucket serves nobody.
BOUNDED = {"connect_timeout": 3, "read_timeout": 10, "retries": {"max_attempts": 1}}


class Store:
    """The operator's folder or bucket. Every path is checked to stay below it."""

    def __init__(self, settings: Settings) -> None:
        self._uri, self._credentials = settings.store.rstrip("/"), settings.store_credentials_file
        self.digests = Digests()

    def open(self, folder: str, name: str) -> Any:
        """A binary file; raises a 404 problem when it is gone and a 503 when the store is silent."""
        with explained():
            files, path = self.locate(folder, name)
            return files.open(path, "rb")

    def look(self, folder: str, name: str) -> Found:
        """What is there now. Look before you open: then it is never newer than the bytes."""
        with explained():
            files, path = self.locate(folder, name)
            about = files.info(path)
            if about["type"] != "file":
                raise NotADirectoryError(path)
            return Found(path, int(about["size"]), hashlib.sha256(str(about).encode()).hexdigest())

    def sha256(self, folder: str, name: str) -> str:
        """Of the file as it is now; read through once for each content."""
        found = self.look(folder, name)
        known = self.digests.get(found)
        if known is None:
            with explained(), self.open(folder, name) as file:
                known = self.digests.of(found, file)
        return known

    def mark(self, folder: str, name: str) -> None:
        """An empty file in a folder that is there already."""
        with explained():
            files, path = self.locate(folder, name)
            if not files.isdir(path.rpartition("/")[0]):
                raise _gone()
            files.pipe_file(path, b"")

    def unmark(self, folder: str, name: str) -> None:
        """Without the file, whether or not it was there."""
        with explained():
            files, path = self.locate(folder, name)
            with suppress(FileNotFoundError):
                files.rm_file(path)

    def delete_checkpoint(self, job_id: str, trial: int, folder: str, *, first: str, unless: str) -> bool:
        """Remove a checkpoint's folder, its file `first` before the others; False when a file `unless` keeps it.

        A folder that is gone already counts as removed, but not with the whole store, which is a 503 problem. Raises
        `Misplaced` for any path that is not exactly that of a checkpoint of this trial, or that a link leads elsewhere.
        """
        if re.fullmatch(rf"jobs/{re.escape(job_id)}/trial-{trial}/attempt-\d+/step-\d+", folder) is None:
            raise Misplaced(folder)
        with explained(), suppress(FileNotFoundError):
            files, path = self.locate(folder, "")
            files.invalidate_cache()
            if isinstance(files, LocalFileSystem):
                _check_real(path, folder)
            if files.exists(f"{path}/{unless}"):
                return False
            with suppress(FileNotFoundError):
                files.rm_file(f"{path}/{first}")
            files.rm(path, recursive=True)
        return True

    def locate(self, folder: str, name: str) -> tuple[Any, str]:
        """The file system and the path in it; a 404 problem for a path that would leave the store."""
        parts = PurePosixPath(folder, name).parts
        if any(part in ("..", "/") or "\\" in part for part in parts):
            raise _gone()
        files, path = fsspec.core.url_to_fs(f"{self._uri}/{'/'.join(parts)}", **self._options())
        return files, str(path)

    def _options(self) -> dict[str, Any]:
        if not self._uri.startswith("s3://"):
            return {}
        options: dict[str, Any] = {"config_kwargs": BOUNDED, "use_listings_cache": False}
        if self._credentials is None:
            return options
        secret = json.loads(self._credentials.read_text())["store"]
        options |= {name: secret[name] for name in ("key", "secret", "token") if name in secret}
        return options | {"client_kwargs": {"endpoint_url": secret.get("endpoint_url")}}


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
def explained() -> Iterator[None]:
    """What a file system or a bucket raises, as a problem: 404 gone, 507 full, 503 silent."""
    try:
        yield
    except FileNotFoundError:
        raise _gone() from None
    except (OSError, BotoCoreError) as error:
        if isinstance(error, OSError) and error.errno in FULL:
            raise full() from None
        detail = f"The store does not answer ({type(error).__name__})"
        raise Problem(503, Code.STORE_UNREACHABLE, detail, retryable=True, headers={"Retry-After": "5"}) from None


def full() -> Problem:
    detail = "The store has no room for this; nothing of it was kept"
    hint = "The operator can free space in the store; deleting datasets that no job needs helps as well"
    return Problem(507, Code.STORE_FULL, detail, hint=hint, retryable=True, headers={"Retry-After": "60"})


def _gone() -> Problem:
    return Problem(404, Code.NOT_FOUND, "This file is not in the store any more")
