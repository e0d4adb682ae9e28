"""An object of a bucket that is there whole or never."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

BLOCK_BYTES = 16 * 2**20  # of one request; a bucket takes 10,000 of them


@contextmanager
def whole_object(files: Any, place: str) -> Iterator[Any]:
    """A file to write to, of the fsspec file system `files`; its bucket shows it when the last block is there."""
    file = files.open(place, "wb", block_size=BLOCK_BYTES, autocommit=False)
    try:
        yield file
        file.close()
    except BaseException:
        file.discard()
        file.closed = True  # or it would be flushed once more when it is collected
        raise
    file.commit()
