"""From the content of a sample to what is packed: decoded, measured, shrunk and encoded, in threads and in order.

What comes out depends on the content alone, never on the number of threads.
"""

from __future__ import annotations

import ctypes
import threading
import warnings
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import simplejpeg

from training_core.data.samples import Content, Unreadable
from training_core.vision.decode import Pixels, decode
from training_core.vision.headers import Header, Undecodable, read_header
from training_core.vision.inspection.measures import measure_many
from training_core.vision.pack import FILE, PLAIN_JPEG, RAW
from training_core.vision.packing import Packing
from training_core.vision.resize import packed_size, resize

JPEG_QUALITY = 90
TOGETHER = 64
SMALL_BYTES = 3 * 2**10
TOGETHER_BYTES = 2 * 2**20
MOST_WAITING_BYTES = 192 * 2**20
LARGE_PIXELS = 4 * 10**6
# What a large image takes while it is decoded: coefficients of a progressive JPEG and RGB, or RGBA on white and RGB.
BYTES_A_PIXEL = 12
MOST_LARGE_BYTES = 768 * 2**20
M_MMAP_THRESHOLD = -3  # malloc.h
LARGE_BLOCK_BYTES = 4 * 2**20


@dataclass(slots=True)
class Packed:
    """One image: how and what is stored, sizes in pixels before and after, `channels` of its own, and its measures."""

    row: int
    stored: int
    payload: Any
    width: int
    height: int
    packed_width: int
    packed_height: int
    channels: int
    measures: tuple[Any, ...]


@dataclass(slots=True)
class Bad:
    """A sample without an image; `finding` is one word, `problem` says what is wrong with it."""

    row: int
    finding: str
    problem: str


@dataclass(slots=True)
class _Decoded:
    """`pixels` in packed size; `width`, `height` and `channels` of the image itself, upright."""

    row: int
    content: bytes | None
    header: Header | None
    pixels: Pixels
    width: int
    height: int
    channels: int


class NotGrey(Exception):
    """An image has colours although none of the probed ones had any."""


class Converter:
    """Turns contents into `Packed` or `Bad`. Safe from many threads."""

    def __init__(self, packing: Packing) -> None:
        self._packing = packing
        self._room = _Room(MOST_LARGE_BYTES)

    def several(self, contents: list[tuple[int, Content]]) -> list[Packed | Bad]:
        decoded = [self._decoded(row, content) for row, content in contents]
        images = [one for one in decoded if isinstance(one, _Decoded)]
        measures = _measured(images)
        return [self._packed(one, measures[one.row]) if isinstance(one, _Decoded) else one for one in decoded]

    def _decoded(self, row: int, content: Content) -> _Decoded | Bad:
        try:
            if isinstance(content, bytes):
                return self._file(row, content)
        except Undecodable as problem:
            return Bad(row, problem.finding, str(problem))
        if isinstance(content, Unreadable):
            return Bad(row, "unreadable", content.problem)
        height, width, channels = content.shape
        small = resize(_with_channels(content, self._packing.channels), *self._size(width, height))
        return _Decoded(row, None, None, small, width, height, channels)

    def _file(self, row: int, content: bytes) -> _Decoded:
        header, channels = read_header(content), self._packing.channels
        if channels == 1 and header.channels == 3:
            raise NotGrey
        smallest = self._size(*header.upright) if header.plain else None
        area = header.width * header.height
        with self._room.held(area * BYTES_A_PIXEL) if area > LARGE_PIXELS else nullcontext():
            # Its own channels where all must be grey: only decoding tells for some.
            pixels = decode(content, header, 0 if channels == 1 else 3, smallest)
            if pixels.shape[2] != channels:
                raise NotGrey
            height, width = header.upright[::-1] if header.plain else pixels.shape[:2]
            small = resize(pixels, *self._size(width, height))
        return _Decoded(row, content, header, small, width, height, header.channels or channels)

    def _size(self, width: int, height: int) -> tuple[int, int]:
        return packed_size(width, height, self._packing.image_size)

    def _packed(self, one: _Decoded, measures: tuple[Any, ...]) -> Packed:
        stored, payload = self._stored(one)
        height, width = one.pixels.shape[:2]
        if payload is one.content:
            height, width = one.height, one.width
        return Packed(one.row, stored, payload, one.width, one.height, width, height, one.channels, measures)

    def _stored(self, one: _Decoded) -> tuple[int, Any]:
        encoding, content = self._packing.encoding, one.content
        if encoding == "raw" or (encoding == "original" and content is None):
            return RAW, np.ascontiguousarray(one.pixels)
        upright_jpeg = one.header is not None and one.header.plain and one.header.orientation == 1
        if encoding == "original":
            return (PLAIN_JPEG if upright_jpeg else FILE), content
        whole = one.pixels.shape[:2] == (one.height, one.width)
        if content is not None and upright_jpeg and whole and len(content) <= one.pixels.size:
            return PLAIN_JPEG, content  # as good as it was: encoding it again would only cost quality
        return PLAIN_JPEG, encode_jpeg(one.pixels)


def _measured(images: list[_Decoded]) -> dict[int, tuple[Any, ...]]:
    """By row. Images of one shape together: how an image is measured must not depend on its neighbours."""
    shapes: dict[tuple[int, ...], list[_Decoded]] = {}
    for one in images:
        shapes.setdefault(one.pixels.shape, []).append(one)
    measures: dict[int, tuple[Any, ...]] = {}
    for alike in shapes.values():
        values = measure_many([one.content for one in alike], [one.pixels for one in alike])
        measures.update(zip((one.row for one in alike), values, strict=True))
    return measures


def encode_jpeg(pixels: Pixels, quality: int = JPEG_QUALITY) -> bytes:
    grey = pixels.shape[2] == 1
    encoded: bytes = simplejpeg.encode_jpeg(
        np.ascontiguousarray(pixels), quality, "GRAY" if grey else "RGB", "Gray" if grey else "420"
    )
    return encoded


def _with_channels(pixels: Pixels, channels: int) -> Pixels:
    """Arrays of a format without files, `(height, width, 1 or 3)`."""
    if channels == 1 and pixels.shape[2] == 3:
        raise NotGrey
    return pixels if pixels.shape[2] == channels else np.repeat(pixels, channels, axis=2)


class _Room:
    """Bounds what is held at once. One that is larger than all of it waits until it is alone."""

    def __init__(self, size: int) -> None:
        self._size, self._held = size, 0
        self._changed = threading.Condition()

    @contextmanager
    def held(self, wanted: int) -> Iterator[None]:
        wanted = min(wanted, self._size)
        with self._changed:
            self._changed.wait_for(lambda: self._held + wanted <= self._size)
            self._held += wanted
        try:
            yield
        finally:
            with self._changed:
                self._held -= wanted
                self._changed.notify_all()


def _give_back_large_blocks() -> None:
    """Left to itself, glibc keeps what large images took, once in every thread."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES)


def convert(contents: Iterable[tuple[int, Content]], packing: Packing, threads: int) -> Generator[Packed | Bad]:
    """The results in the order of `contents`; a bounded number of bytes is under way. Raises `NotGrey`."""
    _give_back_large_blocks()
    converter = Converter(packing)
    waiting: deque[tuple[Future[list[Packed | Bad]], int]] = deque()
    waiting_bytes = 0
    with warnings.catch_warnings(), ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        warnings.simplefilter("ignore")  # Pillow's remarks about files; whatever matters is an error
        try:
            for batch, size in _batches(contents):
                if size < len(batch) * SMALL_BYTES and not waiting:
                    yield from converter.several(batch)  # mostly the interpreter's own work: a thread would only wait
                    continue
                waiting.append((pool.submit(converter.several, batch), size))
                waiting_bytes += size
                while len(waiting) > 2 * threads or (waiting_bytes > MOST_WAITING_BYTES and len(waiting) > 1):
                    done, size_done = waiting.popleft()
                    waiting_bytes -= size_done
                    yield from done.result()
            while waiting:
                yield from waiting.popleft()[0].result()
        finally:
            for future, _ in waiting:
                future.cancel()


def _batches(contents: Iterable[tuple[int, Content]]) -> Iterator[tuple[list[tuple[int, Content]], int]]:
    """Some samples with their bytes: handing over one by one would cost as much as decoding small images."""
    batch: list[tuple[int, Content]] = []
    size = 0
    for row, content in contents:
        batch.append((row, content))
        size += _size(content)
        if len(batch) >= TOGETHER or size >= TOGETHER_BYTES:
            yield batch, size
            batch, size = [], 0
    if batch:
        yield batch, size


def _size(content: Content) -> int:
    if isinstance(content, bytes):
        return len(content)
    return int(content.nbytes) if isinstance(content, np.ndarray) else 0
