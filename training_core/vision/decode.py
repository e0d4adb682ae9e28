"""Decodes one image file completely and upright, or says why it cannot be decoded.

JPEG goes through simplejpeg (libjpeg-turbo, strict: whatever libjpeg only warns of is found), the rest through Pillow.
Transparent parts become white; 16-bit grey becomes 8-bit without being clipped.
"""

from __future__ import annotations

import io
import re

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import (
    Image,
    UnidentifiedImageError,
    WebPImagePlugin,  # noqa: F401  else Pillow loads every plugin it has, in whichever thread is first
    _imaging,
)

from training_core.vision.headers import (
    Header,
    Undecodable,
    check_size,
    jpeg_finding,
    png_without_metadata,
    read_header,
)

# Some cameras pad the end of the pixels; damaged pixels leave far more behind.
FEW_EXTRANEOUS_BYTES = 16
SMALL_PIXELS = 128 * 128
EXTRANEOUS = re.compile(r"(\d+) extraneous bytes before marker 0xd9")
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

Pixels = NDArray[np.uint8]


def decode_file(content: bytes, channels: int) -> Pixels:
    """`(height, width, channels) uint8`, in full size. Raises `Undecodable`."""
    return decode(content, read_header(content), channels)


def decode(content: bytes, header: Header, channels: int = 0, smallest: tuple[int, int] | None = None) -> Pixels:
    """`(height, width, channels) uint8`; 0 channels stand for the image's own 1 or 3.

    With `smallest`, an upright width and height, a JPEG at least twice as large may come out smaller than it is, but
    not smaller than that. Raises `Undecodable`, also for a truncated file.
    """
    if header.plain:
        pixels = _decode_jpeg(content, header, channels, smallest)
        return turn(pixels, header.orientation)
    small = header.pixels and header.width * header.height <= SMALL_PIXELS
    quick = _decode_small_png(content, header, channels or header.channels) if small else None
    return _decode_other(content, header, channels) if quick is None else quick


def _decode_small_png(content: bytes, header: Header, channels: int) -> Pixels | None:
    """What Pillow would do, without the objects around it, which cost more than a small image.

    None where only Pillow can do it, or can say what is wrong.
    """
    if channels < header.channels:
        return None
    mode, size = ("L" if header.channels == 1 else "RGB"), (header.width, header.height)
    image = _imaging.new(mode, size)
    decoder = _imaging.zip_decoder(mode, mode)
    decoder.setimage(image, (0, 0, *size))
    packed = [content[start:end] for start, end in header.pixels]
    consumed, error = decoder.decode(packed[0] if len(packed) == 1 else b"".join(packed))
    decoder.cleanup()
    if consumed >= 0 or error < 0:  # it wants more, or it is damaged
        return None
    encoder = _imaging.raw_encoder(mode, mode, 0, 1)
    encoder.setimage(image, (0, 0, *size))
    _, done, raw = encoder.encode(header.width * header.height * header.channels)
    encoder.cleanup()
    if done != 1:
        return None
    pixels = np.frombuffer(raw, np.uint8).reshape(header.height, header.width, header.channels)
    return turn(pixels if channels == header.channels else np.repeat(pixels, channels, axis=2), header.orientation)


def turn(pixels: Pixels, orientation: int) -> Pixels:
    """Upright, contiguous."""
    if orientation == 1:
        return pixels
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in {3, 4, 7, 8}:
        pixels = pixels[::-1]
    if orientation in {2, 3, 6, 7}:
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _decode_jpeg(content: bytes, header: Header, channels: int, smallest: tuple[int, int] | None) -> Pixels:
    width, height = smallest or (0, 0)
    if header.orientation >= 5:
        width, height = height, width
    colours = "GRAY" if (channels or header.channels) == 1 else "RGB"
    wanted = {"min_height": height, "min_width": width, "min_factor": 2 if smallest else 1}
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(content, colours, **wanted)
    except ValueError as problem:
        if not _is_harmless(str(problem)):
            raise Undecodable(jpeg_finding(content), str(problem)) from problem
        pixels = simplejpeg.decode_jpeg(content, colours, strict=False, **wanted)
    return pixels


def _is_harmless(words: str) -> bool:
    extraneous = EXTRANEOUS.search(words)
    return extraneous is not None and int(extraneous[1]) <= FEW_EXTRANEOUS_BYTES


def _decode_other(content: bytes, header: Header, channels: int) -> Pixels:
    try:
        # One format: nothing else gets to look at the bytes.
        image = Image.open(io.BytesIO(_lean(content, header)), formats=(header.kind,))
        check_size(*image.size)
        if getattr(image, "is_animated", False):
            raise Undecodable("animated", "it is animated")
        orientation = header.orientation if header.kind == "PNG" else image.getexif().get(0x0112, 1)
        image.load()
        flat = _flatten(image)
    except Undecodable:
        raise
    except UnidentifiedImageError:
        raise Undecodable("corrupt", f"its {header.kind} header is damaged") from None
    except Exception as problem:
        words = str(problem) or type(problem).__name__
        raise Undecodable("truncated" if "truncated" in words else "corrupt", words) from problem
    channels = channels or header.channels or (1 if flat.mode in {"1", "L"} else 3)
    mode = "L" if channels == 1 else "RGB"
    pixels = np.asarray(flat if flat.mode == mode else flat.convert(mode))
    return turn(pixels[:, :, None] if channels == 1 else pixels, orientation)


def _lean(content: bytes, header: Header) -> bytes:
    return png_without_metadata(content) if header.padded else content


def _flatten(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        wide = np.asarray(image, np.float32)
        return Image.fromarray(np.clip(wide / (257.0 if wide.max() > 255 else 1.0), 0, 255).astype(np.uint8))
    if image.mode in {"RGBA", "LA", "PA"} or "transparency" in image.info:
        transparent = image if image.mode == "RGBA" else image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(transparent, mask=transparent.getchannel("A"))
        return white
    return image
