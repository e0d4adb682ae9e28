"""Files on the worker's disk that stand for what cannot be sought in where it lies: compressed archives and members."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path

from training_core.contract.errors import Failed, Reason

RESERVE_BYTES = 512 * 2**20
RESERVED_PART = 40
CHECK_EVERY_BYTES = 64 * 2**20


class Spool:
    """Below `folder`, which its owner deletes. Never fills the disk: half a GiB, or a fortieth of it, stays free."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, name: str, chunks: Iterable[bytes]) -> Path:
        """The file that holds `chunks`, written unless it is there. Raises `Failed(no_space)`."""
        path = self._folder / f"spool-{blake2b(name.encode(), digest_size=12).hexdigest()}"
        if path.exists():
            return path
        self._folder.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.{threading.get_native_id()}.tmp")
        try:
            with temporary.open("wb") as file:
                unchecked = CHECK_EVERY_BYTES
                for chunk in chunks:
                    unchecked += len(chunk)
                    if unchecked >= CHECK_EVERY_BYTES:
                        check_space(self._folder, CHECK_EVERY_BYTES, name)
                        unchecked = 0
                    file.write(chunk)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        return path


def check_space(folder: Path, needed_bytes: int, what: str) -> None:
    disk = shutil.disk_usage(folder)
    if disk.free - needed_bytes < min(RESERVE_BYTES, disk.total // RESERVED_PART):
        raise Failed(
            Reason.NO_SPACE,
            f"{what} does not fit on the worker's cache disk ({disk.free / 2**20:,.0f} MiB are free)",
            "free some space there, or store the data without compression",
        )
