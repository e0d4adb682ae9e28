"""What inspection measures of every image, in the pass that decodes it.

content, pixels  hashes of the file's bytes and of the packed pixels: exact copies; `content` is 0 without a file
phash            perceptual hash of 64 bits: which of the lowest 8 x 8 cosines lie above their median (Zauner 2010)
fine_0 … fine_3  the same of the lowest 16 x 16, 256 bits: tells apart what looks alike to the short one
brightness       mean, 0 black to 1 white
highlight        what 99 % of the pixels stay below: low only where the whole image is dark
shadow           what 95 % of the pixels stay above: high only where the whole image is bright
information      entropy of the grey values, bits a pixel, 0 to 8
sharpness        how steep the steepest edges are: 1 for steps of one pixel, 0.25 for ramps (see `sharpness`)

A few samples of the pixels tell as much as all of them; only the hash of the pixels sees each one. All but a few
microseconds run without the interpreter's lock.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from training_core.vision.inspection.fingerprint import fingerprint

FIELDS: tuple[pa.Field, ...] = (
    pa.field("content", pa.uint64(), nullable=False),
    pa.field("pixels", pa.uint64(), nullable=False),
    pa.field("phash", pa.uint64(), nullable=False),
    *(pa.field(f"fine_{part}", pa.uint64(), nullable=False) for part in range(4)),
    pa.field("brightness", pa.float32(), nullable=False),
    pa.field("highlight", pa.float32(), nullable=False),
    pa.field("shadow", pa.float32(), nullable=False),
    pa.field("information", pa.float32(), nullable=False),
    pa.field("sharpness", pa.float32(), nullable=False),
)
Measures = tuple[int | float, ...]
Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]

SMALL_SIDE = 48  # the shorter side of the small grey image is at least this long
MOST_LINES = 256  # and the longer one at most this
FREQUENCIES = 16
SAMPLED_LINES = 16  # rows, and as many columns
LAG = 4  # pixels
DARKER, BRIGHTER = 0.99, 0.05


def measure(content: bytes | None, pixels: Pixels) -> Measures:
    """One value for each of FIELDS. `pixels` is `(height, width, 1 or 3) uint8`, upright and in packed size."""
    pixels = np.ascontiguousarray(pixels)
    small = small_grey(pixels)
    below = list(accumulate(small.histogram()))
    total = below[-1]
    cosines = lowest_cosines(np.asarray(small, np.float32)[None])
    return (
        fingerprint(content) if content is not None else 0,
        fingerprint(pixels),
        *perceptual_hashes(cosines)[0].tolist(),
        float(cosines[0, 0, 0]) / total / 255,
        bisect_left(below, DARKER * total) / 255,
        bisect_left(below, BRIGHTER * total) / 255,
        small.entropy(),
        sharpness(pixels[None])[0],
    )


def measure_many(contents: Sequence[bytes | None], pixels: Sequence[Pixels]) -> list[Measures]:
    """`measure` of each; small images of one shape all at once, which takes a quarter of the time."""
    if len({one.shape for one in pixels}) != 1 or not _is_small(*pixels[0].shape[:2]):
        return [measure(content, one) for content, one in zip(contents, pixels, strict=True)]
    stack = np.stack(pixels)
    area = stack[0, :, :, 0].size
    grey = stack[..., 0] if stack.shape[3] == 1 else (stack.sum(axis=3, dtype=np.uint16) // 3).astype(np.uint8)
    cosines = lowest_cosines(grey.astype(np.float32))
    columns = (
        np.array([fingerprint(content) if content is not None else 0 for content in contents], np.uint64),
        np.array([fingerprint(one) for one in stack], np.uint64),
        *perceptual_hashes(cosines).T,
        cosines[:, 0, 0] / (255 * area),
        *tones(grey),
    )
    return list(zip(*(column.tolist() for column in columns), sharpness(stack), strict=True))


def _is_small(height: int, width: int) -> bool:
    """Whether `small_grey` would leave it as large as it is."""
    return min(height, width) < 2 * SMALL_SIDE and max(height, width) <= MOST_LINES


def small_grey(pixels: Pixels) -> Image.Image:
    """Means over boxes of the contiguous `pixels`, all channels together; of large images every few rows suffice.

    An interleaved row of colours is read as one long grey row, which needs no conversion and no copy.
    """
    height, width, channels = pixels.shape
    factor = max(1, min(height, width) // SMALL_SIDE)
    skip = factor if factor >= 4 else (factor + 1) // 2
    rows = max(1, height // skip)
    image = Image.frombuffer("L", (width * channels, rows), pixels, "raw", "L", width * channels * skip, 1)
    small = image.reduce((channels * factor, 1 if skip == factor else 2))
    if max(small.size) > MOST_LINES:
        return small.resize((min(small.width, MOST_LINES), min(small.height, MOST_LINES)), Image.Resampling.BOX)
    return small


def tones(grey: Pixels) -> tuple[Floats, Floats, Floats]:
    """Highlight, shadow and information of `(images, height, width)`."""
    images, area = len(grey), grey[0].size
    levels = grey.reshape(images, -1) + np.arange(0, images * 256, 256)[:, None]
    counts = np.bincount(levels.reshape(-1), minlength=images * 256).reshape(images, 256)
    below = counts.cumsum(axis=1)
    shares = np.maximum(counts, 1) / area
    information = -(counts * np.log2(shares)).sum(axis=1) / area
    highlight, shadow = ((below < share * area).sum(axis=1) / 255 for share in (DARKER, BRIGHTER))
    return highlight, shadow, information


def lowest_cosines(grey: Floats) -> Floats:
    """`(images, 16, 16)` of `(images, height, width)`: the lowest frequencies of the discrete cosine transform, down
    and across; the first is the sum."""
    _, height, width = grey.shape
    return np.asarray(_cosines(height) @ grey @ _cosines(width).T, np.float32)


@lru_cache(maxsize=MOST_LINES)
def _cosines(length: int) -> Floats:
    angles = np.pi / length * np.outer(np.arange(FREQUENCIES), np.arange(length) + 0.5)
    return np.asarray(np.cos(angles), np.float32)


def perceptual_hashes(cosines: Floats) -> NDArray[np.uint64]:
    """`(images, 5)`: the short one, and the four words of the fine one."""
    parts = (cosines[:, :8, :8].reshape(-1, 64), cosines.reshape(-1, FREQUENCIES**2))
    bits = np.concatenate([_above_median(part) for part in parts], axis=1)
    return np.packbits(bits, axis=1).view(">u8").astype(np.uint64)


def _above_median(values: Floats) -> NDArray[np.bool_]:
    """The lower one of the two in the middle of each row."""
    middle = values.shape[1] // 2 - 1
    return np.asarray(values > np.partition(values, middle, axis=1)[:, middle, None])


def sharpness(pixels: Pixels) -> list[float]:
    """Differences of neighbours against differences of pixels LAG apart, along sampled rows and columns.

    `pixels` are `(images, height, width, channels)`. A Gaussian blur of sigma pixels turns a step into a ramp about 2.5
    sigma wide, on which neighbours differ by a small part of what pixels LAG apart do, whatever the contrast. Fourth
    powers let the strongest edges decide: a sharp subject before a blurred ground is sharp. Steps of one grey level
    count nothing: smooth surfaces are made of them. NaN without any edge, and for images of no more than LAG pixels.
    """
    images, height, width, channels = pixels.shape
    length = min(height, width)
    if length <= LAG:
        return [math.nan] * images
    channel = channels // 2
    down, across = max(1, height // SAMPLED_LINES), max(1, width // SAMPLED_LINES)
    rows = pixels[:, down // 2 :: down, :length, channel]
    columns = pixels[:, :length, across // 2 :: across, channel].swapaxes(1, 2)
    lines = np.empty((images, rows.shape[1] + columns.shape[1], length), np.float32)
    lines[:, : rows.shape[1]], lines[:, rows.shape[1] :] = rows, columns
    near = _fourth_powers(lines[..., 1:] - lines[..., :-1])
    far = _fourth_powers(lines[..., LAG:] - lines[..., :-LAG])
    return [(one / other) ** 0.25 if other > 0 else math.nan for one, other in zip(near, far, strict=True)]


def _fourth_powers(differences: Floats) -> list[float]:
    """For each image the sum of d**4 - d**2, 0 for steps of 0 and 1: s**2 - s = (s - 1/2)**2 - 1/4 of the squares s."""
    squares = np.square(differences, out=differences).reshape(len(differences), -1)
    squares -= np.float32(0.5)
    return [max(0.0, total - 0.25 * squares.shape[1]) for total in np.vecdot(squares, squares).tolist()]
