"""The items of a prepared dataset: one row an image that could be decoded, in the order of its pixels in the pack.

`items.arrow` holds, memory-mapped, the columns of the samples (path, size, fingerprint, label, split, weight,
difficulty, group), the size of the original upright image (`width`, `height`), where its packed form lies (`shard`,
`start`, `length`, `packed_width`, `packed_height`), what inspection measured (`inspection.measures.FIELDS`) and the
duplicates it found (`exact_group`, `near_group`: the row of the group's first member, -1 for an image alone).
`quarantine.jsonl` holds one `Quarantined` a line for every sample that has no item.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

ITEMS_FILE = "items.arrow"
QUARANTINE_FILE = "quarantine.jsonl"


class Quarantined(BaseModel):
    """A sample that cannot be trained on. `finding` is one word for its kind, `problem` says what is wrong with it."""

    model_config = ConfigDict(frozen=True)

    path: str
    label: int
    split: int
    finding: str
    problem: str


class Items:
    """Columns by name, read from the file only where they are touched."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / ITEMS_FILE
        self._table = self._mapped()
        self._quarantine = folder / QUARANTINE_FILE

    def _mapped(self) -> pa.Table:
        with pa.memory_map(str(self._file)) as source:
            return pa.ipc.open_file(source).read_all()

    def __len__(self) -> int:
        return int(self._table.num_rows)

    @property
    def table(self) -> pa.Table:
        return self._table

    def column(self, name: str) -> NDArray[Any]:
        """One value a row; null becomes NaN in floating columns and -1 in the group column."""
        column = self._mapped().column(name)  # mapped anew: the pages of what was read do not stay
        values = np.empty(len(column), column.type.to_pandas_dtype())
        start = 0
        for chunk in column.chunks:
            filled = chunk.fill_null(-1 if pa.types.is_integer(chunk.type) else np.nan) if chunk.null_count else chunk
            values[start : start + len(chunk)] = filled.to_numpy()
            start += len(chunk)
        return values

    def paths(self, rows: Sequence[int] | NDArray[np.int64]) -> list[str]:
        """Looked up chunk by chunk: to take them from the column as a whole would put it together in memory."""
        column = self._table.column("path")
        starts = np.concatenate([[0], np.cumsum([len(chunk) for chunk in column.chunks])])
        numbers = np.asarray(rows, np.int64)
        chunks = np.searchsorted(starts, numbers, side="right") - 1
        places = zip(chunks.tolist(), (numbers - starts[chunks]).tolist(), strict=True)
        return [str(column.chunk(chunk)[place]) for chunk, place in places]

    def quarantined(self) -> Iterator[Quarantined]:
        if self._quarantine.exists():
            with self._quarantine.open("rb") as lines:
                yield from map(Quarantined.model_validate_json, lines)
