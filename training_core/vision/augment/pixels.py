"""Changes of pictures that have their size already, in place. Torch-free; see `moving.py` for one that is not."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training_core.vision.augment.counter_rng import Bits
from training_core.vision.augment.presets import Preset

Images = NDArray[np.uint8]

GREY = 128
ERASED_AREA, ERASED_RATIO = (0.02, 0.33), (0.3, 3.3)


def shift_and_flip(images: Images, bits: NDArray[np.uint64], *, flip: bool) -> None:
    """Random crop after mirrored padding by a fourteenth, and a horizontal flip of every second image.

    All images at once, a few microseconds each: one gather by flat position in the unpadded images.
    """
    batch, height, width, channels = images.shape
    pad = max(1, height // 14)
    span = np.uint64(2 * pad + 1)
    down = (bits % span).astype(np.int64) - pad
    right = ((bits >> np.uint64(20)) % span).astype(np.int64) - pad
    turned = (bits >> np.uint64(40)) % np.uint64(2) == 1
    rows = _mirror(np.arange(height)[None, :] + down[:, None], height)
    steps = np.arange(width)[None, :]
    columns = np.where(turned[:, None] & flip, width - 1 - steps, steps) + right[:, None]
    columns = _mirror(columns, width)
    pixel = (np.arange(batch)[:, None] * height + rows)[:, :, None] * width + columns[:, None, :]
    flat = images.reshape(-1, channels)
    taken = flat[:, 0].take(pixel)[..., None] if channels == 1 else flat.take(pixel, axis=0)
    images[...] = taken


def turn(images: Images, turned: NDArray[np.bool_]) -> None:
    """A horizontal flip of those that are `turned`."""
    images[turned] = images[turned][:, :, ::-1]


def _mirror(positions: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Positions outside come back in, the border pixel not repeated."""
    last = max(1, size - 1)
    inside: NDArray[np.int64] = np.minimum(last - np.abs(last - np.abs(positions)), size - 1)
    return inside


def colour(images: Images, bits: Bits, stream: int, preset: Preset) -> None:
    """Brightness of each image, contrast about grey of each image and channel. Takes 2 + channels streams."""
    channels = images.shape[-1]
    brightness = bits.uniform(stream, -preset.brightness, preset.brightness)
    contrast = bits.uniform(stream + 1, 1 - preset.contrast, 1 + preset.contrast)
    casts = [bits.uniform(stream + 2 + channel, 1 - preset.cast, 1 + preset.cast) for channel in range(channels)]
    gain = contrast[:, None] * np.stack(casts, axis=1)
    values = (np.arange(256) - GREY) * gain[:, :, None] + GREY * (1 + brightness[:, None, None])
    tables = np.clip(np.rint(values), 0, 255).astype(np.uint8).reshape(len(images), -1)
    for image, table in zip(images, tables, strict=True):
        image[...] = np.asarray(as_picture(image).point(table.tolist())).reshape(image.shape)


def erase(images: Images, bits: Bits, stream: int, probability: float) -> None:
    """A grey rectangle into a part of the images. Takes 5 streams."""
    _, height, width, _ = images.shape
    chosen = bits.uniform(stream) < probability
    area = bits.uniform(stream + 1, *ERASED_AREA) * height * width
    ratio = np.exp(bits.uniform(stream + 2, math.log(ERASED_RATIO[0]), math.log(ERASED_RATIO[1])))
    tall = np.clip(np.rint(np.sqrt(area * ratio)), 1, height).astype(np.int64)
    wide = np.clip(np.rint(np.sqrt(area / ratio)), 1, width).astype(np.int64)
    top = (bits.uniform(stream + 3) * (height - tall + 1)).astype(np.int64)
    left = (bits.uniform(stream + 4) * (width - wide + 1)).astype(np.int64)
    for number in np.flatnonzero(chosen):
        y, x = top[number], left[number]
        images[number, y : y + tall[number], x : x + wide[number]] = GREY


def as_picture(image: Images) -> Image.Image:
    """For Pillow; `image` is `(height, width, 1 or 3) uint8`."""
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
