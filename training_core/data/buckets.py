"""Shapes for batches of images of like aspect ratio, for networks that take any height and width. Torch-free."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Shape = tuple[int, int]

WIDEST_ASPECT = 2.0
SMALL_SIDE = 160


def shapes_near(image_size: int) -> list[Shape]:
    """`(height, width)` from tall to wide, each of about `image_size` squared pixels.

    Sides are multiples of 32 (16 for small images), which deep networks halve without a rest.
    """
    step = 16 if image_size <= SMALL_SIDE else 32
    shapes = set()
    for height in range(step, 4 * image_size + step, step):
        width = max(step, round(image_size**2 / height / step) * step)
        if height != width and 1 / WIDEST_ASPECT <= width / height <= WIDEST_ASPECT:
            shapes.add((height, width))
    shapes.add((image_size, image_size))
    return sorted(shapes, key=lambda shape: (shape[1] / shape[0], shape))


class Shapes:
    """The bucket of each row of a pack: the shape whose aspect ratio is nearest, in proportion."""

    def __init__(self, heights: NDArray[np.int32], widths: NDArray[np.int32], image_size: int) -> None:
        self.shapes = shapes_near(image_size)
        ratios = np.log([width / height for height, width in self.shapes])
        aspect = np.log(np.asarray(widths, np.float64) / np.asarray(heights, np.float64))
        borders = (ratios[1:] + ratios[:-1]) / 2
        self._bucket: NDArray[np.int16] = np.searchsorted(borders, aspect).astype(np.int16)

    def bucket_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        return self._bucket[rows].astype(np.int64)

    def shape_of(self, row: int) -> Shape:
        return self.shapes[int(self._bucket[row])]
