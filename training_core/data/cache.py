"""The prepared datasets of a host: who makes one, who uses one, and which one goes when space is short.

<cache_dir>/<version>/        a prepared dataset, complete
            .<version>.tmp/   one that is being made, or whose making was cut short and will be continued
            locks/<version>   locked by its one maker (exclusive) or its users (shared); its time is the last use
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from training_core.contract.errors import Failed, Reason, StopRequested
from training_core.contract.run_dir import RunSpec
from training_core.data import archive_index
from training_core.data.meta import META_FILE

POLL_SECONDS = 0.05
# A process that prepared ends before the one that trains opens the data.
RECENT_SECONDS = 300.0
ABANDONED_SECONDS = 24 * 3600.0
SPARE_BYTES = 16 * 2**20
EVICTION_LOCK = "eviction"


class Use:
    """A shared lock on one version for as long as this object lives; the kernel drops it with the process."""

    def __init__(self, cache_dir: Path, version: str) -> None:
        self._file = lock_file(cache_dir, version).open("a")
        fcntl.flock(self._file, fcntl.LOCK_SH)
        os.utime(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()


def lock_file(cache_dir: Path, version: str) -> Path:
    folder = cache_dir / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / version


@contextmanager
def making(cache_dir: Path, version: str, stop_requested: Callable[[], bool]) -> Iterator[None]:
    """Only one process makes a version; the others wait here. Raises `StopRequested`."""
    with lock_file(cache_dir, version).open("a") as file:
        while not _try_lock(file.fileno()):
            if stop_requested():
                raise StopRequested
            time.sleep(POLL_SECONDS)
        yield
        os.utime(file.fileno())


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_complete(folder: Path) -> bool:
    return (folder / META_FILE).exists()


def temporary(cache_dir: Path, version: str) -> Path:
    return cache_dir / f".{version}.tmp"


def make_room(run: RunSpec, needed_bytes: int, keep: str) -> None:
    """Evict until `needed_bytes` more fit into the budget and on the disk.

    What version `keep` has already counts as part of them. Raises `Failed(no_space)`.
    """
    needed = max(0, needed_bytes - folder_bytes(temporary(run.cache_dir, keep)))
    with making(run.cache_dir, EVICTION_LOCK, lambda: False):
        _remove_abandoned(run.cache_dir)
        room = _room(run, keep)
        for version in _oldest_first(run.cache_dir):
            if room >= needed:
                break
            if version != keep:
                _evict(run.cache_dir, version)
                room = _room(run, keep)
    if room < needed:
        raise Failed(
            Reason.NO_SPACE,
            f"the prepared dataset needs {needed / 2**20:,.0f} MiB and {max(0, room) / 2**20:,.0f} MiB are left",
            "free space on the worker's cache disk, raise its cache budget, or lower training.image_size",
        )


def _room(run: RunSpec, keep: str) -> int:
    """Bytes left of the budget or of the disk, whichever is less."""
    disk = shutil.disk_usage(run.cache_dir)
    budget = run.cache_bytes or disk.total // 2
    used = sum(folder_bytes(folder) for folder in _folders(run.cache_dir) if folder.name != keep)
    return min(budget - used, disk.free - SPARE_BYTES)


def _folders(cache_dir: Path) -> list[Path]:
    """Complete versions and those that are being made."""
    return [path for path in cache_dir.iterdir() if is_complete(path) or path.name.endswith(".tmp")]


def _oldest_first(cache_dir: Path) -> list[str]:
    """Complete versions that nobody used a moment ago, by last use."""
    used = {
        path.name: lock_file(cache_dir, path.name).stat().st_mtime if lock_file(cache_dir, path.name).exists() else 0.0
        for path in cache_dir.iterdir()
        if not path.name.startswith(".") and is_complete(path)
    }
    now = time.time()
    return sorted((name for name, at in used.items() if now - at >= RECENT_SECONDS), key=lambda name: used[name])


def _evict(cache_dir: Path, version: str) -> None:
    """Nothing happens to one that is in use. It loses its name first: nobody finds half of it."""
    with lock_file(cache_dir, version).open("a") as file:
        if _try_lock(file.fileno()):
            going = cache_dir / f".{version}.evicted.tmp"
            (cache_dir / version).rename(going)
            shutil.rmtree(going)


def _remove_abandoned(cache_dir: Path) -> None:
    """What nobody has touched for a day: kept listings, and what killed processes left half-made."""
    for path in (cache_dir / archive_index.FOLDER).glob("*"):
        if time.time() - path.stat().st_mtime >= ABANDONED_SECONDS:
            path.unlink(missing_ok=True)
    for path in cache_dir.glob(".*"):
        if time.time() - path.stat().st_mtime < ABANDONED_SECONDS or not path.is_dir():
            continue
        with lock_file(cache_dir, path.name.removeprefix(".").removesuffix(".tmp")).open("a") as file:
            if _try_lock(file.fileno()):
                shutil.rmtree(path)


def folder_bytes(folder: Path) -> int:
    """Of a folder that others may be changing; 0 for one that is not there."""
    total = 0
    for where, _, files in os.walk(folder):
        for name in files:
            with suppress(FileNotFoundError):
                total += os.stat(os.path.join(where, name)).st_size
    return total
