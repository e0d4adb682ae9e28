"""A launcher's memory in large pages: which parts of it, and that forks are none the wiser."""

from __future__ import annotations

import mmap
import os
import re
from pathlib import Path

import pytest

from training_core.processes.huge_pages import HUGE_BYTES, gather_pages, ranges

MAPS = """\
555555554000-555555600000 r-xp 00000000 08:01 131                        /usr/bin/python3.11
555556000000-555556700000 rw-p 00000000 00:00 0                          [heap]
7f0000100000-7f0000900000 rw-p 00000000 00:00 0
7f0001000000-7f0001100000 rw-p 00000000 00:00 0
7f0002000000-7f0002800000 rw-p 00200000 08:01 977                        /usr/lib/libtorch.so
7f0003000000-7f0003800000 rw-s 00000000 00:01 12                         /dev/shm/x
7f0004000000-7f0004800000 r--p 00000000 00:00 0
7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0                          [stack]
"""


def test_whole_large_pages_of_private_memory() -> None:
    assert ranges(MAPS) == [(0x555556000000, 0x555556600000), (0x7F0000200000, 0x7F0000800000)]


def huge_bytes() -> int:
    found = re.search(r"AnonHugePages: +(\d+) kB", Path("/proc/self/smaps_rollup").read_text())
    return int(found[1]) * 1024 if found else 0


def test_pages_are_gathered_and_keep_what_they_hold() -> None:
    child = os.fork()
    if child == 0:  # as the launcher: what is gathered here stays here
        os._exit(_gather())
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code == 3:
        pytest.skip("this kernel makes no large pages on request")
    assert code == 0


def _gather() -> int:
    with mmap.mmap(-1, 16 * HUGE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        content = bytes(range(256)) * (len(memory) // 256)
        memory[:] = content
        before = huge_bytes()
        if True not in list(gather_pages()):
            return 3
        return 0 if huge_bytes() >= before + 8 * HUGE_BYTES and memory[:] == content else 1
