"""What `ps` shows of a forked process: without this, every training of a host would be called like the launcher."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

ROOM_CHARACTERS = 1024
PADDING = "-" * ROOM_CHARACTERS  # an argument of a process that will be given another title


def set_title(title: str) -> None:
    """Replace this process's command line as others see it, as far as its own arguments left room (Linux).

    The kernel shows the memory between `arg_start` and `arg_end`, fields 48 and 49 of proc(5)'s `stat`.
    """
    if sys.platform != "linux":
        return
    # The second field is a name in brackets, and may hold anything.
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end = int(fields[45]), int(fields[46])
    if end > start > 0:
        words = title.encode()[: end - start - 1]
        ctypes.memmove(start, words.ljust(end - start, b"\0"), end - start)
