"""The samples of a dataset as its format describes them, before anything is decoded: a table on disk, and a reader.

One row a sample, memory-mapped from an Arrow file, so that ten million rows cost no memory of their own:

path         its name for people, unique, relative to the dataset
file         the file that holds it, relative to the source; null where that is `path` itself
offset       -1 for the whole file; the first byte within an archive, or the number of a row or an image
size         bytes of the encoded image, 0 or less where only reading tells
fingerprint  changes when the content does: 8 bytes of a hash over size, ETag, checksum or time of change
label        index into `classes`
split        index into SPLITS, -1 where the dataset gives none
weight, difficulty   of the dataset's own columns, null without
group        8 bytes of a hash of the value of `dataset.split.group_by`, null without
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

SPLITS = ("train", "validation", "test")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")

SAMPLES_SCHEMA = pa.schema(
    [
        pa.field("path", pa.large_string(), nullable=False),
        pa.field("file", pa.large_string()),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("fingerprint", pa.uint64(), nullable=False),
        pa.field("label", pa.int32(), nullable=False),
        pa.field("split", pa.int8(), nullable=False),
        pa.field("weight", pa.float32()),
        pa.field("difficulty", pa.float32()),
        pa.field("group", pa.int64()),
    ]
)


@dataclass(frozen=True)
class Unreadable:
    """Content that could not be read although its source answers: `problem` completes "<path> cannot be read: …"."""

    problem: str


# Encoded bytes, or pixels that need no decoding, `(height, width, channels) uint8`.
Content = bytes | NDArray[np.uint8] | Unreadable


class Reader(Protocol):
    """Reads samples by row. Rising rows are read fastest: archives and tables are read in one go."""

    def read(self, rows: Sequence[int]) -> Iterator[tuple[int, Content]]:
        """Each row with its content, in the order of `rows`, reading ahead within bounds.

        Raises `Failed` when the source itself fails after its retries.
        """
        ...


@dataclass(frozen=True)
class Samples:
    """`digest` covers all that the prepared form takes from the data: it is the data's part of the dataset version.

    `ignored` lists files that are no samples, `{"path", "reason"}`, the first thousand of `ignored_count`.
    """

    uri: str
    format: str
    file: Path
    classes: list[str]
    digest: str
    ignored: list[dict[str, str]] = field(default_factory=list)
    ignored_count: int = 0

    def table(self) -> pa.Table:
        """Memory-mapped."""
        with pa.memory_map(str(self.file)) as source:
            return pa.ipc.open_file(source).read_all()
