"""The sha256 of files in the store, remembered for as long as they do not change there."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from typing import Any, NamedTuple

MOST = 10_000
CHUNK_BYTES = 1 << 20


class Found(NamedTuple):
    """A file that is there: its place, its bytes, and what changes with its content."""

    path: str
    size: int
    version: str


class Digests:
    """Of one process. The least recently used is forgotten first."""

    def __init__(self) -> None:
        self._known: OrderedDict[Found, str] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, found: Found) -> str | None:
        with self._lock:
            known = self._known.get(found)
            if known is not None:
                self._known.move_to_end(found)
            return known

    def keep(self, found: Found, sha256: str) -> None:
        with self._lock:
            self._known[found] = sha256
            self._known.move_to_end(found)
            if len(self._known) > MOST:
                self._known.popitem(last=False)

    def of(self, found: Found, file: Any) -> str:
        """Known, or taken from the open `file`, which is read through."""
        known = self.get(found)
        if known is None:
            digest = hashlib.sha256()
            file.seek(0)
            while piece := file.read(CHUNK_BYTES):
                digest.update(piece)
            known = digest.hexdigest()
            self.keep(found, known)
        return known
