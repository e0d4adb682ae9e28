"""The one listing of a source, on disk: an Arrow file, memory-mapped, written as the entries come."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from training_core.data.sources.source import Entry

CHUNK_ROWS = 65_536
LISTING_SCHEMA = pa.schema(
    [
        pa.field("path", pa.large_string(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("stamp", pa.uint64(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("stored", pa.int64(), nullable=False),
    ]
)


class Listing:
    """Rows are numbered in the order of the source, through all `files`."""

    def __init__(self, *files: Path) -> None:
        self._files = files
        tables = []
        for file in files:
            with pa.memory_map(str(file)) as source:
                tables.append(pa.ipc.open_file(source).read_all())
        self._table: pa.Table = pa.concat_tables(tables) if tables else LISTING_SCHEMA.empty_table()

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def chunks(self) -> Iterator[pa.RecordBatch]:
        """Read, not mapped: pages of a file that is read once would stay in memory."""
        for file in self._files:
            with pa.OSFile(str(file)) as source:
                reader = pa.ipc.open_file(source)
                yield from map(reader.get_batch, range(reader.num_record_batches))

    def paths(self) -> Iterator[str]:
        for chunk in self.chunks():
            yield from chunk.column("path").to_pylist()

    def take(self, rows: NDArray[np.int64]) -> pa.Table:
        return self._table.take(pa.array(rows))

    def entries(self, rows: NDArray[np.int64]) -> list[Entry]:
        """In memory: ask for a chunk at a time."""
        return [*map(Entry, *(column.to_pylist() for column in self.take(rows).columns))]

    def entry(self, row: int) -> Entry:
        return self.entries(np.array([row]))[0]


def write_listing(entries: Iterable[Entry], file: Path) -> Listing:
    """Names that are not UTF-8 are replaced by a readable form, under which nothing will be found."""
    stream = iter(entries)
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, LISTING_SCHEMA) as out:
        while chunk := list(islice(stream, CHUNK_ROWS)):
            paths, sizes, stamps, offsets, stored = zip(*chunk, strict=True)
            columns = [
                pa.array(map(_readable, paths), pa.large_string()),
                pa.array(sizes, pa.int64()),
                pa.array(stamps, pa.uint64()),
                pa.array(offsets, pa.int64()),
                pa.array(stored, pa.int64()),
            ]
            out.write_batch(pa.RecordBatch.from_arrays(columns, schema=LISTING_SCHEMA))
    return Listing(file)


def _readable(path: str) -> str:
    return path if path.isascii() else path.encode("utf-8", "backslashreplace").decode("utf-8", "replace")


def fingerprints(sizes: NDArray[np.int64], stamps: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """64 bits for each pair: SplitMix64's finalizer (Steele, Lea & Flood 2014) over the stamp mixed with the size."""
    with np.errstate(over="ignore"):
        bits = stamps ^ (sizes.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))
        bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed: NDArray[np.uint64] = bits ^ (bits >> np.uint64(31))
    return mixed
