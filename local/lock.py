"""A pid file that is locked as long as its process lives, so that a stale one is never mistaken for a running one."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path


class AlreadyRuns(Exception):
    """Another process holds the lock."""


class PidFile:
    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Held until this process ends. Raises `AlreadyRuns`."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise AlreadyRuns(f"process {self.path.read_text().strip()}") from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        self._descriptor = descriptor

    def holder(self) -> int | None:
        """The process that holds it, if any."""
        try:
            with self.path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return None
        except FileNotFoundError:
            return None
        except BlockingIOError:
            return int(self.path.read_text() or 0) or None

    def wait_until_free(self, timeout_seconds: float) -> bool:
        deadline = time.monotonic() + timeout_seconds
        while self.holder() is not None:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True
