"""IDX, the format of MNIST: `…-images-idx3-ubyte` beside `…-labels-idx1-ubyte`, also .gz."""

from __future__ import annotations

import gzip
import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from training_core.contract.errors import Failed, Reason
from training_core.data.bombs import check_unpacked
from training_core.data.formats.columns import invalid
from training_core.data.formats.context import Context, Opened
from training_core.data.formats.reader import FileReader
from training_core.data.formats.splits import UNSPLIT, split_in
from training_core.data.formats.unzipped import UnzippedReads
from training_core.data.formats.writer import Rows, SampleWriter
from training_core.data.listing import CHUNK_ROWS, fingerprints
from training_core.data.sources import LARGEST_FILE_BYTES
from training_core.data.sources.source import stamp_of

UNSIGNED_BYTES = 8
CHUNK_BYTES = 2**20
MOST_LABELS = 10**9
HINT = "name them like train-images-idx3-ubyte and train-labels-idx1-ubyte"


@dataclass(frozen=True)
class Images:
    """`count` images `(height, width, channels) uint8` from byte `start` on."""

    count: int
    shape: tuple[int, int, int]
    start: int

    @property
    def bytes(self) -> int:
        return self.shape[0] * self.shape[1] * self.shape[2]


def open_idx(context: Context) -> Opened:
    """Raises `Failed(dataset_invalid)` for a magic number or a length that is wrong."""
    pairs = _pairs(context)
    writer = context.writer("idx")
    shapes, sizes = set(), dict[str, int]()
    for (row, path), (label_row, label_path) in pairs:
        images = _images(context, row, path)
        labels = _labels(context, label_row, label_path)
        if len(labels) != images.count:
            raise invalid(path, f"holds {images.count:,} images, and {label_path} {len(labels):,} labels", HINT)
        shapes.add(images.shape)
        sizes[path] = images.start + images.count * images.bytes
        split = _split(path) if len(pairs) > 1 else UNSPLIT
        pair = _Pair(path, row, images, labels, _stamp(context, row, label_row), split)
        for rows in pair.rows(writer):
            writer.add(rows)
    if len(shapes) > 1:
        raise invalid(context.uri, f"holds images of {len(shapes)} sizes", "IDX files of one dataset must agree")
    samples = writer.finish()
    return samples, FileReader(
        UnzippedReads(context.source, context.folder, sizes), context.listing, samples, shapes.pop()
    )


def _split(path: str) -> int:
    return 2 if path.rpartition("/")[2].lower().startswith("t10k") else split_in(path)


def _pairs(context: Context) -> list[tuple[tuple[int, str], tuple[int, str]]]:
    by_name = {_plain(path): (row, path) for row, path in context.survey.idx}
    pairs = []
    for name, images in sorted(by_name.items()):
        if "images" in name or re.search(r"idx[34]", name):
            twin = re.sub(r"idx[34]", "idx1", name.replace("images", "labels"))
            if twin == name or twin not in by_name:
                raise invalid(images[1], "has no file of labels beside it", HINT)
            pairs.append((images, by_name[twin]))
    if not pairs:
        raise Failed(Reason.DATASET_EMPTY, f"there are no IDX files at {context.uri}", HINT)
    return pairs


def _plain(path: str) -> str:
    return path.lower().removesuffix(".gz")


def _images(context: Context, row: int, path: str) -> Images:
    with _stream(context, row, path) as file:
        sizes = _header(file, path, (3, 4))
    count, height, width, channels = (*sizes, 1)[:4]
    images = Images(count, (height, width, channels), 4 + 4 * len(sizes))
    if channels not in {1, 3} or not 0 < images.bytes <= LARGEST_FILE_BYTES:
        raise invalid(path, f"holds images of {height} x {width} x {channels} bytes", "give images of 1 or 3 channels")
    size = context.listing.entry(row).size
    check_unpacked(path, size, images.start + count * images.bytes)
    if not path.lower().endswith(".gz") and size != images.start + count * images.bytes:
        raise invalid(
            path, f"is {size:,} bytes long, and its header says {images.start + count * images.bytes:,}", HINT
        )
    return images


def _labels(context: Context, row: int, path: str) -> NDArray[np.uint8]:
    with _stream(context, row, path) as file:
        (count,) = _header(file, path, (1,))
        if count > MOST_LABELS:
            raise invalid(path, f"says that it holds {count:,} labels", "check that the upload is complete")
        check_unpacked(path, context.listing.entry(row).size, count)
        content = _read(file, path, count + 1)
    if len(content) != count:
        raise invalid(path, f"holds {len(content):,} labels or more, and its header says {count:,}", HINT)
    return np.frombuffer(content, np.uint8)


@contextmanager
def _stream(context: Context, row: int, path: str) -> Iterator[BinaryIO]:
    with context.source.open(context.listing.entry(row)) as file:
        if not path.lower().endswith(".gz"):
            yield file
            return
        with gzip.open(file, "rb") as unpacked:
            yield cast(BinaryIO, unpacked)


def _header(file: BinaryIO, path: str, dimensions: Sequence[int]) -> tuple[int, ...]:
    magic = _read(file, path, 4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] != UNSIGNED_BYTES or magic[3] not in dimensions:
        raise invalid(path, f"begins with {magic.hex()}, which is not IDX of unsigned bytes", HINT)
    sizes = _read(file, path, 4 * magic[3])
    if len(sizes) < 4 * magic[3]:
        raise invalid(path, "is truncated", "check that the upload is complete")
    return struct.unpack(f">{magic[3]}I", sizes)


def _read(file: BinaryIO, path: str, length: int) -> bytes:
    parts = []
    try:
        while length > 0 and (part := file.read(min(length, CHUNK_BYTES))):
            parts.append(part)
            length -= len(part)
    except (EOFError, zlib.error, gzip.BadGzipFile) as problem:
        raise invalid(path, "is damaged", "check that the upload is complete") from problem
    return b"".join(parts)


@dataclass(frozen=True)
class _Pair:
    """A file of images and its labels."""

    path: str
    row: int
    images: Images
    labels: NDArray[np.uint8]
    stamp: int
    split: int

    def rows(self, writer: SampleWriter) -> Iterator[Rows]:
        numbers = np.zeros(256, np.int32)
        for value in np.unique(self.labels):
            numbers[value] = writer.number(str(value))
        for start in range(0, self.images.count, CHUNK_ROWS):
            index = np.arange(start, min(start + CHUNK_ROWS, self.images.count))
            sizes = np.full(len(index), self.images.bytes, np.int64)
            yield Rows(
                paths=pa.array([f"{self.path}/{number}" for number in index.tolist()], pa.large_string()),
                files=pa.array([self.path] * len(index), pa.large_string()),
                offsets=self.images.start + index * self.images.bytes,
                sizes=sizes,
                fingerprints=fingerprints(sizes, np.uint64(self.stamp) ^ index.astype(np.uint64)),
                labels=numbers[self.labels[index]],
                splits=np.full(len(index), self.split, np.int8),
                entries=np.full(len(index), self.row, np.int64),
            )


def _stamp(context: Context, *rows: int) -> int:
    return stamp_of(" ".join(f"{entry.size} {entry.stamp}" for entry in map(context.listing.entry, rows)))
