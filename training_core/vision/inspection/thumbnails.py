"""A small picture of an image, inside JSON."""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

LONGEST_SIDE = 96
SHORTEST_LONG_SIDE = 64  # images of a few pixels are enlarged, each pixel a square
MOST_STRETCHED = 8  # a line of pixels would vanish beside its length


def thumbnail(pixels: NDArray[np.uint8]) -> str:
    """A `data:image/jpeg` URL of `(height, width, 1 or 3) uint8`, aspect kept, the longer side 64 to 96 pixels."""
    height, width, channels = pixels.shape
    image = Image.fromarray(np.ascontiguousarray(pixels[:, :, 0] if channels == 1 else pixels))
    longest = max(width, height)
    scale = min(1.0, LONGEST_SIDE / longest)
    resample = Image.Resampling.BOX
    if longest < SHORTEST_LONG_SIDE:
        scale, resample = float(SHORTEST_LONG_SIDE // longest), Image.Resampling.NEAREST
    size = (max(MOST_STRETCHED, round(width * scale)), max(MOST_STRETCHED, round(height * scale)))
    if size != image.size:
        image = image.resize(size, resample)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
