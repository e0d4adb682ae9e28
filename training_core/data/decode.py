"""Decodes one image file completely into a square of uint8, or says why it cannot be decoded."""

from __future__ import annotations

import io
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
MOST_PIXELS = 64 * 10**6
GREY_MODES = {"1", "L", "LA", "I;16", "I"}


class Undecodable(Exception):
    """The words say what is wrong with the content."""


def open_image(content: bytes) -> Image.Image:
    """The header of an image, its pixels not yet decoded. Raises `Undecodable`."""
    if not content:
        raise Undecodable("the file is empty")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = Image.open(io.BytesIO(content), formats=FORMATS)
        except Image.DecompressionBombError as problem:
            raise Undecodable("it has far too many pixels") from problem
        except Exception as problem:
            raise Undecodable(f"it is not an image of a known format ({', '.join(FORMATS)})") from problem
    if image.width * image.height > MOST_PIXELS:
        raise Undecodable(f"{image.width} x {image.height} pixels are more than {MOST_PIXELS:,}")
    if getattr(image, "is_animated", False):
        raise Undecodable("it is animated")
    return image


def is_grey(image: Image.Image) -> bool:
    return image.mode in GREY_MODES


def decode(content: bytes, side: int, channels: int) -> NDArray[np.uint8]:
    """`(side, side, channels) uint8`: turned upright by EXIF, scaled to cover the square, cut at its centre.

    Raises `Undecodable`, also for a truncated file.
    """
    image = open_image(content)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image.load()
            image = ImageOps.exif_transpose(image)
            image = _flatten(image).convert("L" if channels == 1 else "RGB")
            if image.size != (side, side):
                image = ImageOps.fit(image, (side, side), Image.Resampling.BILINEAR)
    except Exception as problem:
        raise Undecodable(str(problem) or type(problem).__name__) from problem
    return np.asarray(image, np.uint8).reshape(side, side, channels)


def _flatten(image: Image.Image) -> Image.Image:
    """Transparent parts become white, and 16-bit grey becomes 8-bit without being clipped."""
    if image.mode.startswith("I"):
        wide = np.asarray(image, np.float32)
        return Image.fromarray(np.clip(wide / (257.0 if wide.max() > 255 else 1.0), 0, 255).astype(np.uint8))
    if image.mode in {"RGBA", "LA", "PA"} or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image)
    return image
