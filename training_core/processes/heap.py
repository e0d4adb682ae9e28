"""The heap of a process that trains on CPUs. Torch-free."""

from __future__ import annotations

import ctypes
import resource

# malloc.h
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
NEVER = 2**31 - 1
ADDRESS_LIMITS = (resource.RLIMIT_DATA, resource.RLIMIT_AS)


def keep_freed_memory() -> None:
    """Have glibc keep what a step frees for the next one; where there is another malloc, nothing happens.

    Left to itself it gives large tensors back to the kernel, which clears each page anew at every step: that took 5 to
    48 % of a step (`benchmarks/engine/heap.py`). Forked processes inherit the setting. The process grows to what a step
    needs at its highest, and stays there. A limit on addresses counts what is kept as used, and the next kernel that
    oneDNN compiles would find no room: under one nothing is kept.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    limited = any(resource.getrlimit(one)[0] != resource.RLIM_INFINITY for one in ADDRESS_LIMITS)
    if mallopt is not None and not limited:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, NEVER)


def give_back_freed_memory() -> None:
    """Once, what is free now: after a step that ran out of memory, or before something else that needs it."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
