"""The heap of a process that trains on CPUs. Torch-free."""

from __future__ import annotations

import ctypes

# malloc.h
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
NEVER, GROWTH_BYTES = 2**31 - 1, 64 << 20


def keep_freed_memory() -> None:
    """Have glibc keep what a step frees for the next one; where there is another malloc, nothing happens.

    Left to itself it gives large tensors back to the kernel, which clears each page anew at every step: that took 5 to
    48 % of a step (`benchmarks/engine/heap.py`). Forked processes inherit the setting. The process grows to what a step
    needs at its highest, and stays there.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, NEVER)
        mallopt(M_TOP_PAD, GROWTH_BYTES)


def give_back_freed_memory() -> None:
    """Once, what is free now: after a step that ran out of memory, or before something else that needs it."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
