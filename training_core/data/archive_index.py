"""Indexes of archives, kept on the worker's disk: walking through an archive again would read it again."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

FOLDER = "listings"


def kept(cache: Path, identity: str, make: Callable[[Path], object]) -> Path:
    """The file made under `identity` before, or now by `make`, which writes the path that it is given."""
    path = cache / FOLDER / f"{blake2b(identity.encode(), digest_size=20).hexdigest()}.arrow"
    with suppress(FileNotFoundError):
        os.utime(path)  # who clears up looks at the time of last use
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{threading.get_native_id()}.tmp")
    try:
        make(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
