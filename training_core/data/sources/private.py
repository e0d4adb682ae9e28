"""Folders that are no data, wherever they lie: the store, the cache, the work folder and what else the operator names.

They are told by device and inode, and not by name: a link, a hard link or a mount of them somewhere else is the same.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path

from training_core.contract.errors import Failed, Reason
from training_core.contract.run_dir import RunSpec

Identity = tuple[int, int]
REMEMBERED_FOLDERS = 16_384


class PrivatePlaces:
    """`folders` that do not exist are passed over."""

    def __init__(self, folders: Sequence[Path] = ()) -> None:
        real = {os.path.realpath(folder) for folder in folders}
        self._folders = sorted(one for one in real if os.path.isdir(one))
        self._identities = {_identity(os.stat(one)) for one in self._folders}
        self._points = {_mount_point(one) for one in self._folders}
        # One look at a folder serves all files in it; what is mounted there later is seen by the next run.
        self.has_folder = lru_cache(REMEMBERED_FOLDERS)(self._has_folder)

    def check_folder(self, real: str, shown: str) -> None:
        """Raises `Failed(dataset_forbidden)` for a folder, as a path without links, that is one of them or in one."""
        if self._folders and self.has_folder(real):
            raise forbidden(shown)

    def check_file(self, real: str, status: os.stat_result, shown: str) -> None:
        """Of an open file: also where a hard link to it lies in one of them."""
        if not self._folders:
            return
        self.check_folder(os.path.dirname(real), shown)
        devices = {device for device, _ in self._identities}
        if status.st_nlink > 1 and status.st_dev in devices and _identity(status) in self._linked:
            raise forbidden(shown)

    def _has_folder(self, real: str) -> bool:
        """By every folder on the way up; a part of one may be mounted alone, and then the way leads past it."""
        ours = self._parts if _mount_point(real) not in self._points else self._identities
        for folder in (Path(real), *Path(real).parents):
            try:
                if _identity(os.stat(folder)) in ours:
                    return True
            except OSError:
                continue
        return False

    @cached_property
    def _parts(self) -> set[Identity]:
        """They and all folders in them; looked for when data lies on a mount of its own."""
        found = set(self._identities)
        for top in self._folders:
            for folder, _, _ in os.walk(top):
                try:
                    found.add(_identity(os.stat(folder)))
                except OSError:
                    continue
        return found

    @cached_property
    def _linked(self) -> set[Identity]:
        """Files in them that have a second name, which may be anywhere; looked for when data has such files."""
        found: set[Identity] = set()
        for top in self._folders:
            for folder, _, names in os.walk(top):
                for name in names:
                    try:
                        status = os.lstat(f"{folder}/{name}")
                    except OSError:
                        continue
                    if status.st_nlink > 1:
                        found.add(_identity(status))
        return found


def private_places(run: RunSpec) -> PrivatePlaces:
    """Those of a run."""
    scheme, separator, path = run.store.partition("://")
    store = [Path(path if separator else scheme)] if scheme == "file" or not separator else []
    return PrivatePlaces([*store, run.cache_dir, *run.private_dirs])


def forbidden(shown: str) -> Failed:
    return Failed(
        Reason.DATASET_FORBIDDEN,
        f"{shown} lies where the service keeps its own files",
        "name a model by its id in model.weights; move data of yours to a folder of its own",
    )


def _identity(status: os.stat_result) -> Identity:
    return status.st_dev, status.st_ino


def _mount_point(real: str) -> str:
    """The folder at which the file system of a path is mounted: proc(5), /proc/self/mountinfo."""
    points = [_plain(line.split(" ")[4]) for line in _mounts()]
    return max((one for one in points if f"{real}/".startswith(f"{one.rstrip('/')}/")), key=len, default="/")


def _mounts() -> list[str]:
    try:
        return Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return []


def _plain(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)
