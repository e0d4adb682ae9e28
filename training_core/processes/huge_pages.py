"""Memory of a process that is forked again and again, in pages of 2 MiB instead of 4 KiB. Torch-free.

A fork copies an entry for each page, and its end takes each of them back: of the 400 MB that a launcher has read in,
that is most of what a fork costs (13 ms of CPU on each side, 4 and 6 with large pages). A page that a child writes to
is copied as one of 4 KiB all the same.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from pathlib import Path

HUGE_BYTES = 2 * 2**20
MADV_COLLAPSE = 25  # Linux 6.1; asm-generic/mman-common.h
MAPS = Path("/proc/self/maps")
_PRIVATE = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) rw-p 0+ 00:00 0\s*(\[heap\])?$")


def gather_pages() -> Iterator[bool]:
    """Make one large page with each step; says whether it was possible there. Over where nothing of it exists."""
    advise = getattr(ctypes.CDLL(None), "madvise", None)
    if advise is None or not MAPS.exists():
        return
    advise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    for start, end in ranges(MAPS.read_text()):
        for address in range(start, end, HUGE_BYTES):
            yield advise(address, HUGE_BYTES, MADV_COLLAPSE) == 0


def ranges(maps: str) -> list[tuple[int, int]]:
    """From `/proc/PID/maps`: whole large pages of private memory that no file is behind."""
    found = [_PRIVATE.match(line) for line in maps.splitlines()]
    bounds = [(int(one[1], 16), int(one[2], 16)) for one in found if one]
    inner = [(-(-start // HUGE_BYTES) * HUGE_BYTES, end // HUGE_BYTES * HUGE_BYTES) for start, end in bounds]
    return [(start, end) for start, end in inner if start < end]
