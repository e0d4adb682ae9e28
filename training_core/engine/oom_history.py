"""What ran out of memory on this host and what did not: the next job of the same kind begins with smaller pieces.

<cache_dir>/probes/headroom/<key>-<precision>.json, one for each kind of training, written atomically. Torch-free.
"""

from __future__ import annotations

import time
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from training_core.contract.run_dir import write_atomically

FOLDER = "probes/headroom"
# Memory that others used at the time may be free again.
FORGET_AFTER_SECONDS = 14 * 24 * 3600.0


class Headroom(BaseModel):
    """Images of one forward pass on one device: `ran_out` were too many, `micro_batch_size` were taken instead."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ran_out: int
    micro_batch_size: int
    at: float


def remember(cache_dir: Path, key: str, precision: str, *, ran_out: int, micro_batch_size: int) -> None:
    """Under the key of the probe table (`training_core.planner.table.key_of`)."""
    path = _path(cache_dir, key, precision)
    path.parent.mkdir(parents=True, exist_ok=True)
    record = Headroom(ran_out=ran_out, micro_batch_size=micro_batch_size, at=time.time())
    write_atomically(path, record.model_dump_json().encode())


def known(cache_dir: Path, key: str, precision: str) -> int | None:
    """The micro-batch that was taken when a larger one ran out of memory here, lately; None if none did."""
    try:
        record = Headroom.model_validate_json(_path(cache_dir, key, precision).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
    return record.micro_batch_size if time.time() - record.at < FORGET_AFTER_SECONDS else None


def _path(cache_dir: Path, key: str, precision: str) -> Path:
    return cache_dir / FOLDER / f"{key}-{precision}.json"
