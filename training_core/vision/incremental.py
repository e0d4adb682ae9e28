"""Images that have not changed since an earlier version of the same source are taken from its pack."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from training_core.contract.run_dir import write_atomically
from training_core.data import cache
from training_core.data.items import Items
from training_core.data.samples import Samples
from training_core.vision.convert import Packed
from training_core.vision.inspection.measures import FIELDS
from training_core.vision.pack import Pack
from training_core.vision.packing import Packing, Probed

COPIED = ("stored", "width", "height", "packed_width", "packed_height", "channels")
MEASURED = tuple(field.name for field in FIELDS)
CHUNK_ROWS = 16_384


class Pointer(BaseModel):
    """The newest version of a source, and what its packing was."""

    model_config = ConfigDict(frozen=True)

    version: str
    packing: Packing


class Sources:
    """`<cache_dir>/sources/<key>`: a pointer for each source and way of packing."""

    def __init__(self, cache_dir: Path, uri: str, settings: dict[str, Any]) -> None:
        key = hashlib.sha256(json.dumps([uri, settings], sort_keys=True).encode()).hexdigest()[:32]
        self._cache_dir, self._file = cache_dir, cache_dir / "sources" / key

    def newest(self) -> Pointer | None:
        try:
            pointer = Pointer.model_validate_json(self._file.read_bytes())
        except (FileNotFoundError, ValidationError):
            return None
        return pointer if cache.is_complete(self._cache_dir / pointer.version) else None

    def point_to(self, version: str, packing: Packing) -> None:
        self._file.parent.mkdir(exist_ok=True)
        write_atomically(self._file, Pointer(version=version, packing=packing).model_dump_json().encode())


class Earlier:
    """Which samples an earlier version has already: `item_of` holds its row for each of them, or -1."""

    def __init__(self, folder: Path, packing: Packing, samples: Samples) -> None:
        self.packing = packing
        self._pack = Pack(folder)
        items = Items(folder)
        self.item_of = _matches(_keys(samples.table()), _keys(items.table))
        self._table = items.table.select([*COPIED, *MEASURED])
        self._block: dict[str, list[Any]] = {}
        self._first = 0

    def facts(self, row: int) -> Probed:
        one = self._table.slice(int(self.item_of[row]), 1).to_pylist()[0]
        return one["width"], one["height"], one["channels"]

    def packed(self, row: int) -> Packed:
        """Rising rows are found fastest: their values come from the file block by block."""
        item = int(self.item_of[row])
        if not self._block or not 0 <= item - self._first < len(self._block[COPIED[0]]):
            self._first = item // CHUNK_ROWS * CHUNK_ROWS
            self._block = self._table.slice(self._first, CHUNK_ROWS).to_pydict()
        at = item - self._first
        values = {name: self._block[name][at] for name in COPIED}
        measures = tuple(self._block[name][at] for name in MEASURED)
        return Packed(row=row, payload=self._pack.encoded(item), measures=measures, **values)


def open_earlier(cache_dir: Path, sources: Sources, samples: Samples) -> Earlier | None:
    pointer = sources.newest()
    if pointer is None:
        return None
    try:
        return Earlier(cache_dir / pointer.version, pointer.packing, samples)
    except FileNotFoundError:  # evicted since
        return None


def _keys(table: pa.Table) -> NDArray[np.uint64]:
    """64 bits for each row's path, size and fingerprint."""
    keys = np.empty(table.num_rows, np.uint64)
    start = 0
    for batch in table.select(["path", "size", "fingerprint"]).to_batches(CHUNK_ROWS):
        rows = zip(*(column.to_pylist() for column in batch.columns), strict=True)
        digests = (hashlib.blake2b(f"{p}\0{s}\0{f}".encode(), digest_size=8).digest() for p, s, f in rows)
        keys[start : start + batch.num_rows] = np.frombuffer(b"".join(digests), np.uint64)
        start += batch.num_rows
    return keys


def _matches(keys: NDArray[np.uint64], earlier: NDArray[np.uint64]) -> NDArray[np.int64]:
    if not len(earlier):
        return np.full(len(keys), -1)
    order = np.argsort(earlier, kind="stable")
    at = np.minimum(np.searchsorted(earlier, keys, sorter=order), len(earlier) - 1)
    found = order[at]
    return np.where(earlier[found] == keys, found, -1)
