"""Which part of an image becomes the picture that the network sees. Torch-free."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from training_core.data.buckets import Shape
from training_core.vision.augment.counter_rng import Bits

# (images, 4) of top, left, height, width in pixels
Boxes = NDArray[np.int64]

TRIES = 10
LOWEST_RATIO, HIGHEST_RATIO = 3 / 4, 4 / 3
STREAMS = 2 * TRIES + 2


def centre_boxes(heights: NDArray[np.int32], widths: NDArray[np.int32], shape: Shape) -> Boxes:
    """The largest part in the middle that has the aspect ratio of `shape`."""
    return _centre(heights, widths, shape[1] / shape[0], shape[1] / shape[0])


def random_boxes(
    bits: Bits,
    stream: int,
    heights: NDArray[np.int32],
    widths: NDArray[np.int32],
    *,
    area: tuple[float, float],
    shape: Shape,
) -> Boxes:
    """The distribution of torchvision's RandomResizedCrop, its aspect ratios relative to that of `shape`.

    Takes `STREAMS` streams of `bits` from `stream` on: the first of ten tries that fits, else the middle.
    """
    aspect = shape[1] / shape[0]
    heights, widths = heights.astype(np.int64), widths.astype(np.int64)
    tries = [_try(bits, stream + 2 * number, heights * widths, area, aspect) for number in range(TRIES)]
    tall, wide = (np.stack([one[part] for one in tries]) for part in (0, 1))
    fits = np.asarray((tall > 0) & (wide > 0) & (tall <= heights) & (wide <= widths))
    first = fits.argmax(axis=0), np.arange(len(heights))
    height, width = tall[first], wide[first]
    random = bits.uniform(stream + 2 * TRIES), bits.uniform(stream + 2 * TRIES + 1)
    top = (random[0] * (heights - height + 1)).astype(np.int64)
    left = (random[1] * (widths - width + 1)).astype(np.int64)
    fallback = _centre(heights, widths, LOWEST_RATIO * aspect, HIGHEST_RATIO * aspect)
    some = np.asarray(fits.any(axis=0))
    return np.where(some[:, None], np.stack([top, left, height, width], axis=1), fallback)


def _try(
    bits: Bits, stream: int, pixels: NDArray[np.int64], area: tuple[float, float], aspect: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    wanted = pixels * bits.uniform(stream, *area)
    ratio = aspect * np.exp(bits.uniform(stream + 1, math.log(LOWEST_RATIO), math.log(HIGHEST_RATIO)))
    return np.rint(np.sqrt(wanted / ratio)).astype(np.int64), np.rint(np.sqrt(wanted * ratio)).astype(np.int64)


def _centre(heights: NDArray[np.integer], widths: NDArray[np.integer], lowest: float, highest: float) -> Boxes:
    """The largest part in the middle with an aspect ratio (width / height) between the two."""
    height = np.minimum(heights, np.maximum(1, np.rint(widths / lowest))).astype(np.int64)
    width = np.minimum(widths, np.maximum(1, np.rint(heights * highest))).astype(np.int64)
    return np.stack([(heights - height) // 2, (widths - width) // 2, height, width], axis=1)
