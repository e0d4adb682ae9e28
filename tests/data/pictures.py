"""Image files of every kind, made on the spot."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Images = NDArray[np.uint8]


def photo(height: int = 60, width: int = 80, channels: int = 3, seed: int = 0) -> Images:
    """Smooth with some noise, `(height, width, channels)`."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width]
    waves = [128 + 90 * np.sin(rows * random.uniform(0.02, 0.2) + columns * 0.05 + one) for one in range(channels)]
    noisy = np.stack(waves, 2) + random.normal(0, 8, (height, width, channels))
    return np.clip(noisy, 0, 255).astype(np.uint8)


def image_file(pixels: Images, kind: str = "PNG", mode: str | None = None, **options: object) -> bytes:
    image = Image.fromarray(pixels[:, :, 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels)
    buffer = io.BytesIO()
    (image.convert(mode) if mode else image).save(buffer, kind, **options)
    return buffer.getvalue()


def png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def hollow_png(width: int, height: int) -> bytes:
    """The header of an image of this size and some of its pixels: a few hundred bytes."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(100_000))
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", pixels) + png_chunk(b"IEND", b"")


def with_chunk(png: bytes, name: bytes, content: bytes) -> bytes:
    """`png` with one more chunk behind its header."""
    return png[:33] + png_chunk(name, content) + png[33:]
