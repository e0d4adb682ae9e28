"""The picture of an image as a training's evaluation sees it, made with NumPy and Pillow alone: for serving.

The same integer arithmetic as the kernel below `transforms.resize_into`, so that a model which is served
without torch gets the very pixels that it was judged on.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from training_core.vision.augment.crops import centre_boxes
from training_core.vision.decode import Pixels, decode
from training_core.vision.headers import read_header
from training_core.vision.resize import packed_size, resize

Weights = NDArray[np.float64]

MOST_PRECISION = 22
LARGEST_WEIGHT = 2**15


def picture(content: bytes, side: int, channels: int) -> Pixels:
    """`(side, side, channels) uint8` from an encoded image, as from a pack of raw pixels. Raises `Undecodable`."""
    header = read_header(content)
    smallest = packed_size(*header.upright, side) if header.plain else None
    pixels = decode(content, header, channels, smallest)
    width, height = header.upright if header.plain else (pixels.shape[1], pixels.shape[0])
    return square(resize(pixels, *packed_size(width, height, side)), side)


def square(pixels: Pixels, side: int) -> Pixels:
    """`(side, side, channels) uint8`: the square in the middle of `(height, width, channels)`, antialiased."""
    height, width = pixels.shape[:2]
    [[top, left, tall, wide]] = centre_boxes(np.array([height]), np.array([width]), (side, side)).tolist()
    part = pixels[top : top + tall, left : left + wide]
    if part.shape[:2] == (side, side):
        return np.ascontiguousarray(part)
    across = part if wide == side else _scaled(part, side, axis=1)
    return np.ascontiguousarray(across if tall == side else _scaled(across, side, axis=0))


def _scaled(pixels: Pixels, size: int, axis: int) -> Pixels:
    """Sums of products below 2**40: exact in float64, and rounded as the fixed-point kernel rounds."""
    weights, precision = _weights(pixels.shape[axis], size)
    sums = np.tensordot(weights, pixels.astype(np.float64), axes=(1, axis))
    rounded = (sums.astype(np.int64) + (1 << (precision - 1))) >> precision
    return np.moveaxis(np.clip(rounded, 0, 255).astype(np.uint8), 0, axis)


@lru_cache(maxsize=64)
def _weights(length: int, size: int) -> tuple[Weights, int]:
    """`(size, length)` triangle weights as whole numbers of `2**-precision`: torch's UpSampleKernel for uint8."""
    scale = length / size
    support = max(1.0, scale)
    centre = scale * (np.arange(size) + 0.5)
    first = np.maximum((centre - support + 0.5).astype(np.int64), 0)
    behind = np.minimum((centre + support + 0.5).astype(np.int64), length)
    places = np.arange(length)
    weights = np.maximum(0.0, 1.0 - np.abs((places - centre[:, None] + 0.5) / support))
    weights[(places < first[:, None]) | (places >= behind[:, None])] = 0.0
    weights /= weights.sum(axis=1, keepdims=True)
    precision = 0
    while precision < MOST_PRECISION and int(0.5 + weights.max() * (1 << (precision + 1))) < LARGEST_WEIGHT:
        precision += 1
    return np.trunc(0.5 + weights * (1 << precision)), precision
