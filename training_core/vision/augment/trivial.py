"""TrivialAugment in its wide space (Müller & Hutter 2021): one operation an image, at a random strength. Torch-free.

Pillow carries out each operation, as in the paper's own code.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

from training_core.vision.augment.counter_rng import Bits
from training_core.vision.augment.pixels import as_picture

STRENGTHS = 31
LARGEST_SHEAR, LARGEST_SHIFT, LARGEST_TURN, LARGEST_ENHANCEMENT = 0.99, 1 / 7, 135.0, 0.99

Operation = Callable[[Image.Image, float], Image.Image]


def trivial(images: NDArray[np.uint8], bits: Bits, stream: int) -> None:
    """In place. Takes 3 streams: operation, strength, sign."""
    operations = bits.below(stream, len(OPERATIONS)).tolist()
    strengths = (bits.below(stream + 1, STRENGTHS) / (STRENGTHS - 1)).tolist()
    signs = (bits.below(stream + 2, 2) * 2 - 1).tolist()
    for image, operation, strength, sign in zip(images, operations, strengths, signs, strict=True):
        change, signed = OPERATIONS[operation]
        changed = change(as_picture(image), strength * sign if signed else strength)
        image[...] = np.asarray(changed).reshape(image.shape)


def _affine(
    image: Image.Image, *, x_by_y: float = 0.0, y_by_x: float = 0.0, x: float = 0.0, y: float = 0.0
) -> Image.Image:
    matrix = (1.0, x_by_y, x * image.width, y_by_x, 1.0, y * image.height)
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)


def _posterize(image: Image.Image, strength: float) -> Image.Image:
    return ImageOps.posterize(image, 8 - round(6 * strength))


def _solarize(image: Image.Image, strength: float) -> Image.Image:
    return ImageOps.solarize(image, round(255 * (1 - strength)))


def _enhance(kind: Callable[[Image.Image], ImageEnhance._Enhance]) -> Operation:
    return lambda image, strength: kind(image).enhance(1 + LARGEST_ENHANCEMENT * strength)


# (operation, whether its strength has a sign)
OPERATIONS: list[tuple[Operation, bool]] = [
    (lambda image, _: image, False),
    (lambda image, strength: _affine(image, x_by_y=LARGEST_SHEAR * strength), True),
    (lambda image, strength: _affine(image, y_by_x=LARGEST_SHEAR * strength), True),
    (lambda image, strength: _affine(image, x=LARGEST_SHIFT * strength), True),
    (lambda image, strength: _affine(image, y=LARGEST_SHIFT * strength), True),
    (lambda image, strength: image.rotate(LARGEST_TURN * strength, Image.Resampling.BILINEAR), True),
    (_enhance(ImageEnhance.Brightness), True),
    (_enhance(ImageEnhance.Color), True),
    (_enhance(ImageEnhance.Contrast), True),
    (_enhance(ImageEnhance.Sharpness), True),
    (_posterize, False),
    (_solarize, False),
    (lambda image, _: ImageOps.autocontrast(image), False),
    (lambda image, _: ImageOps.equalize(image), False),
]
