"""The one resize of training, validation and serving: bilinear, antialiased.

Each target pixel is the mean of the source pixels below a triangle as wide as the scale (Pillow's `BILINEAR`, and
torchvision's with `antialias=True`): shrinking by any factor leaves no moiré. A model that was trained with one resize
and serves with another loses accuracy, so `DESCRIPTION` is recorded with the model.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

DESCRIPTION = "cover the square, bilinear with antialiasing, cut at the centre"
PACKED_SCALE = 1.15

Pixels = NDArray[np.uint8]


def packed_size(width: int, height: int, image_size: int) -> tuple[int, int]:
    """Width and height of the packed form: the shorter side about 1.15 times the training size, never enlarged."""
    wanted = packed_side(image_size)
    shorter = min(width, height)
    if shorter <= wanted:
        return width, height
    return max(1, round(width * wanted / shorter)), max(1, round(height * wanted / shorter))


def packed_side(image_size: int) -> int:
    return round(image_size * PACKED_SCALE)


def resize(pixels: Pixels, width: int, height: int, box: tuple[float, float, float, float] | None = None) -> Pixels:
    """`(height, width, channels)` of the image `(h, w, 1 or 3)`, or of its part `box` (left, top, right, bottom)."""
    if box is None and pixels.shape[:2] == (height, width):
        return pixels
    grey = pixels.shape[2] == 1
    image = Image.fromarray(pixels[:, :, 0] if grey else pixels)
    small = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR, box=box))
    return small[:, :, None] if grey else small


def cover(pixels: Pixels, side: int) -> Pixels:
    """`(side, side, channels)`: scaled to cover the square, cut at its centre."""
    height, width = pixels.shape[:2]
    shorter = min(height, width)
    left, top = (width - shorter) / 2, (height - shorter) / 2
    if height == width:
        return resize(pixels, side, side)
    if shorter == side:
        return pixels[int(top) : int(top) + side, int(left) : int(left) + side]
    return resize(pixels, side, side, (left, top, left + shorter, top + shorter))
