"""The pixels of a prepared dataset: shards of raw or encoded images, memory-mapped and shared by all who read them.

The columns of `items.arrow` say where each image lies: `shard`, `start` and `length` in bytes, `stored` (how),
`packed_width` and `packed_height` in pixels. Rows follow each other in the shards without a gap.
"""

from __future__ import annotations

import mmap
import os
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from training_core.data import cache
from training_core.data.items import Items
from training_core.data.meta import read_meta
from training_core.vision.decode import decode_file

RAW, PLAIN_JPEG, FILE = 0, 1, 2

Pixels = NDArray[np.uint8]
Rows = NDArray[np.int64]


def shard_name(number: int) -> str:
    return f"pixels-{number:05d}.bin"


class Pack:
    """Images by row. Safe from many threads; while it lives, its folder is in use and will not be evicted.

    `encoding` is `raw` when every image is, and `jpeg` when they are files: JPEG that simplejpeg decodes upright
    (`plain`), or any other file that could be decoded. `shape` is `(height, width)` when all are raw and of one size.
    """

    def __init__(self, folder: Path) -> None:
        self._use = cache.Use(folder.parent, folder.name)
        self.folder = folder
        self.meta = read_meta(folder)
        self.channels = self.meta.channels
        self.encoding: Literal["raw", "jpeg"] = "raw" if self.meta.encoding == "raw" else "jpeg"
        self.shape: tuple[int, int] | None = None
        if self.meta.height is not None and self.meta.width is not None:
            self.shape = (self.meta.height, self.meta.width)
        self._items = Items(folder)
        self._shards = [_map(folder / shard_name(number)) for number in range(len(self.meta.shards))]
        # Row numbers at which shards begin, and the end.
        self._firsts = np.concatenate([[0], np.cumsum(self.meta.shards)]).astype(np.int64)
        if self.shape is not None:
            shape = (-1, *self.shape, self.channels)
            self._uniform = [shard.reshape(shape) for shard in self._shards]

    def __len__(self) -> int:
        return self.meta.images

    @cached_property
    def heights(self) -> NDArray[np.int32]:
        return self._items.column("packed_height")

    @cached_property
    def widths(self) -> NDArray[np.int32]:
        return self._items.column("packed_width")

    @cached_property
    def plain(self) -> NDArray[np.bool_]:
        """Rows whose `encoded` bytes are a JPEG of 1 or 3 channels that needs no turning."""
        plain: NDArray[np.bool_] = self._items.column("stored") == PLAIN_JPEG
        return plain

    @cached_property
    def _places(self) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]:
        column = self._items.column
        return column("shard"), column("start"), column("length"), column("stored")

    def gather(self, rows: Rows, out: Pixels | None = None) -> Pixels:
        """`(len(rows), height, width, channels) uint8` in memory of its own, or in `out`. Needs `shape`."""
        if self.shape is None:
            raise ValueError("images of different sizes have no common array")
        if out is None:
            out = np.empty((len(rows), *self.shape, self.channels), np.uint8)
        if len(self._uniform) == 1:
            return np.take(self._uniform[0], rows, axis=0, out=out, mode="clip")
        shards = np.searchsorted(self._firsts, rows, side="right") - 1
        for shard in np.unique(shards):
            here = np.flatnonzero(shards == shard)
            out[here] = self._uniform[shard][rows[here] - self._firsts[shard]]
        return out

    def pixels(self, row: int) -> Pixels:
        """`(height, width, channels) uint8`: a read-only view of a raw image, or the decoded one."""
        shard, start, length, stored = (values[row] for values in self._places)
        content: Pixels = self._shards[shard][start : start + length]
        if stored == RAW:
            return content.reshape(self.heights[row], self.widths[row], self.channels)
        if stored == PLAIN_JPEG:
            # The bytes were decoded strictly when they were packed; what was allowed then must not fail now.
            decoded: Pixels = simplejpeg.decode_jpeg(content, "GRAY" if self.channels == 1 else "RGB", strict=False)
            return decoded
        return decode_file(content.tobytes(), self.channels)

    def encoded(self, row: int) -> memoryview:
        """The stored bytes: a JPEG where `plain`, another image file, or raw pixels."""
        shard, start, length, _ = (values[row] for values in self._places)
        stored: Pixels = self._shards[shard][start : start + length]
        return stored.data


def _map(path: Path) -> Pixels:
    with path.open("rb") as file:
        if not os.fstat(file.fileno()).st_size:  # none of its samples could be decoded
            return np.empty(0, np.uint8)
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
