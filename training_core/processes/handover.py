"""Hands a secret to the one process that needs it: through a pipe that it inherits, and that is empty once it is read.

So a secret is in no file, argument or environment, and only the number of the descriptor is told. Torch-free.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager

DESCRIPTOR = "TRAINYARD_SECRET_DESCRIPTOR"
PIPE_BYTES = 2**16  # what a pipe takes with nobody at its other end

PR_SET_DUMPABLE = 4


@contextmanager
def held_out(secret: bytes | None) -> Iterator[int | None]:
    """The end to read from, for a process that is started within the block; None where there is no secret.

    Raises `ValueError` for one that a pipe does not hold.
    """
    if secret is None:
        yield None
        return
    if len(secret) > PIPE_BYTES:
        raise ValueError(f"credentials of more than {PIPE_BYTES} bytes cannot be handed over")
    reading, writing = os.pipe()
    try:
        os.write(writing, secret)
        os.close(writing)
        yield reading
    finally:
        os.close(reading)


def taken() -> bytes | None:
    """What this process was handed; once, and None when it was handed nothing."""
    number = os.environ.pop(DESCRIPTOR, None)
    if number is None:
        return None
    with os.fdopen(int(number), "rb") as file:
        return file.read()


def keep_private() -> None:
    """No core file of this process, and no look into its memory or environment by others of its user (Linux)."""
    no_core_files()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def no_core_files() -> None:
    """Of this process and of all that it starts."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
