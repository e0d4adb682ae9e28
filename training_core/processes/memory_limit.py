"""A process that may take so much memory more, and no more: the kernel refuses it, and who asked gets an error."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil  # type: ignore[import-untyped]

CGROUP_MEMORY = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
# A worker prepares beside trainings, and for more than one job at once.
PART_OF_HOST = 4
LEAST_BYTES = 2 * 2**30


def memory_limit_bytes() -> int:
    """Of the cgroup, or of the host."""
    host = int(psutil.virtual_memory().total)
    for path in CGROUP_MEMORY:
        with suppress(OSError, ValueError):  # no such cgroup, or "max"
            return min(host, int(path.read_text()))
    return host


def preparation_bytes(wanted: int) -> int:
    """`wanted`, or without it a quarter of the host's memory, but 2 GiB at least."""
    return wanted or max(LEAST_BYTES, memory_limit_bytes() // PART_OF_HOST)


@contextmanager
def limited_memory(more_bytes: int) -> Iterator[None]:
    """Within the block private memory may grow by `more_bytes` (Linux; elsewhere nothing happens).

    RLIMIT_DATA counts what is private and writable, and not the mapped files and libraries; torch, pyarrow, numpy and
    Python raise an error when it is reached. Import what reserves memory before.
    """
    if sys.platform != "linux":
        yield
        return
    import pyarrow as pa  # noqa: PLC0415  its pool reserves a gibibyte with the first use, which is not ours to count

    pa.array([0])
    before = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = _private_bytes() + more_bytes
    hard = before[1]
    resource.setrlimit(resource.RLIMIT_DATA, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def _private_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData:"))
