"""What an image file says about itself, read without decoding, allocating or trusting anything.

Each reader walks the structure of its format and raises `Undecodable` where the file is not whole.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import simplejpeg

MOST_PIXELS = 64 * 10**6
LONGEST_SIDE = 65_500
MOST_SCANS = 200
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_METADATA = {b"iCCP", b"zTXt", b"iTXt", b"tEXt", b"eXIf"}
JPEG_SIGNATURE = b"\xff\xd8\xff"
OTHER_KINDS = {
    b"<": "HTML, XML or SVG",
    b"{": "JSON",
    b"%PDF": "a PDF document",
    b"PK\x03\x04": "a ZIP archive",
    b"\x1f\x8b": "gzip data",
    b"8BPS": "a Photoshop file",
}


class Undecodable(Exception):
    """`finding` is one word for the kind, the words of the error say what is wrong with the content."""

    def __init__(self, finding: str, problem: str) -> None:
        super().__init__(problem)
        self.finding = finding


@dataclass(frozen=True, slots=True)
class Header:
    """`width` and `height` are those of the stored pixels, before `orientation` (EXIF, 1-8) turns them upright.

    `plain` says that libjpeg alone decodes it: a JPEG of 1 or 3 channels. 0 channels: only decoding tells.
    `padded` says that a PNG carries texts and profiles, which may unpack to any size; `pixels` are the places of its
    compressed pixels when they are 8-bit grey or RGB, row by row, and nothing else has a say in them.
    """

    kind: str
    width: int
    height: int
    channels: int = 0
    orientation: int = 1
    plain: bool = False
    padded: bool = False
    pixels: tuple[tuple[int, int], ...] = ()

    @property
    def upright(self) -> tuple[int, int]:
        """Width and height as a person sees the image."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)


def read_header(content: bytes) -> Header:
    """Raises `Undecodable` for what is no image, too large, animated or cut short."""
    if not content:
        raise Undecodable("empty", "the file is empty")
    if content.startswith(PNG_SIGNATURE):
        header = _png(content)
    elif content.startswith(JPEG_SIGNATURE):
        header = _jpeg(content)
    elif content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        header = _webp(content)
    elif content[:6] in {b"GIF87a", b"GIF89a"}:
        width, height = _unpack("<HH", content, 6)
        header = Header("GIF", width, height)
    elif content[:2] == b"BM":
        old = _unpack("<I", content, 14) == (12,)
        width, height = _unpack("<HH" if old else "<ii", content, 18)
        header = Header("BMP", abs(width), abs(height))
    else:
        raise Undecodable("wrong_type", f"it is {_guess(content)}, not a PNG, JPEG, WebP, BMP or GIF image")
    check_size(header.width, header.height)
    return header


def check_size(width: int, height: int) -> None:
    """Raises `Undecodable` for nothing and for more than a training can want."""
    if width < 1 or height < 1:
        raise Undecodable("corrupt", f"{width} x {height} pixels are no image")
    if width * height > MOST_PIXELS or max(width, height) > LONGEST_SIDE:
        raise Undecodable("bomb", f"{width} x {height} pixels are more than {MOST_PIXELS:,}, or too long a side")


def _guess(content: bytes) -> str:
    if content[4:12] in {b"ftypheic", b"ftypheix", b"ftypmif1", b"ftypavif"}:
        return "an HEIC or AVIF image"
    if content[:4] in {b"II*\0", b"MM\0*"}:
        return "a TIFF image"
    if not content.strip(b"\0"):
        return "nothing but zeros"
    start = content[:64].lstrip(b"\xef\xbb\xbf \t\r\n")
    return next((name for magic, name in OTHER_KINDS.items() if start.startswith(magic)), "something else")


def _unpack(form: str, content: bytes, offset: int) -> tuple[int, ...]:
    try:
        return struct.unpack_from(form, content, offset)
    except struct.error:
        raise Undecodable("truncated", "it ends within its header") from None


def png_chunks(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and end of each chunk up to the last. Raises `Undecodable` where one is cut short or damaged.

    Pillow skips the checksums of the pixels and does not miss the end.
    """
    offset, name, view = len(PNG_SIGNATURE), b"", memoryview(content)
    while name != b"IEND":
        if len(content) < offset + 12:
            raise Undecodable("truncated", "it ends before its last chunk")
        length, name = struct.unpack_from(">I4s", content, offset)
        end = offset + 12 + length
        if len(content) < end:
            raise Undecodable("truncated", f"it ends within its {name.decode('latin-1')!r} chunk")
        if zlib.crc32(view[offset + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
            raise Undecodable("corrupt", f"the checksum of its {name.decode('latin-1')!r} chunk is wrong")
        yield name, offset, end
        offset = end


def png_without_metadata(content: bytes) -> bytes:
    """The same pixels without texts, profiles and EXIF."""
    kept = [content[start:end] for name, start, end in png_chunks(content) if name not in PNG_METADATA]
    return PNG_SIGNATURE + b"".join(kept)


def _png(content: bytes) -> Header:
    orientation, padded, plain = 1, False, True
    pixels: list[tuple[int, int]] = []
    if content[12:16] != b"IHDR":
        raise Undecodable("corrupt", "it does not begin with its header")
    width, height, depth, colour, *methods = _unpack(">IIBBBBB", content, 16)
    # Before the chunks: a bomb is called one also when it is cut short.
    check_size(width, height)
    for name, start, end in png_chunks(content):
        if name == b"IDAT":
            pixels.append((start + 8, end - 4))
        elif name in PNG_METADATA:
            padded = True
            if name == b"eXIf":
                orientation = exif_orientation(content[start + 8 : end - 4])
        elif name == b"acTL":
            raise Undecodable("animated", "it is animated")
        elif name == b"tRNS" or (name[0] & 0x20 == 0 and name not in {b"IHDR", b"PLTE", b"IEND"}):
            plain = False
    plain = plain and depth == 8 and colour in {0, 2} and not any(methods)
    channels = 1 if colour in {0, 4} else 3
    return Header("PNG", width, height, channels, orientation, False, padded, tuple(pixels) if plain else ())


def _jpeg(content: bytes) -> Header:
    orientation, progressive = _jpeg_segments(content)
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(content)
    except ValueError as problem:
        raise Undecodable(jpeg_finding(content), str(problem)) from problem
    if progressive and content.count(b"\xff\xda") > MOST_SCANS:
        raise Undecodable("bomb", f"it has more than {MOST_SCANS} scans")
    channels = 1 if colours == "Gray" else 3
    return Header("JPEG", width, height, channels, orientation, plain=colours in {"Gray", "YCbCr", "RGB"})


def _jpeg_segments(content: bytes) -> tuple[int, bool]:
    """EXIF orientation, and whether the pixels come in several scans."""
    offset, orientation = 2, 1
    while offset + 4 <= len(content) and content[offset] == 0xFF:
        marker = content[offset + 1]
        if marker == 0xFF:
            offset += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in {0xC4, 0xC8, 0xCC}:
            return orientation, marker not in {0xC0, 0xC1}
        if marker == 0xDA:
            break
        length = int.from_bytes(content[offset + 2 : offset + 4], "big")
        if marker == 0xE1 and content[offset + 4 : offset + 10] == b"Exif\0\0":
            orientation = exif_orientation(content[offset + 10 : offset + 2 + length])
        offset += 2 + length
    return orientation, False


def exif_orientation(exif: bytes) -> int:
    """1 to 8 from the first directory of a TIFF structure; 1 where it says nothing that can be understood."""
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return 1
    try:
        (directory,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, directory)
        for entry in range(min(count, 512)):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", exif, directory + 2 + 12 * entry)
            if tag == 0x0112:
                return value if kind == 3 and 1 <= value <= 8 else 1
    except struct.error:
        return 1
    return 1


def jpeg_finding(content: bytes) -> str:
    """Of a JPEG that could not be decoded: `truncated` where no end follows its last scan."""
    return "truncated" if content.rfind(b"\xff\xd9") <= content.rfind(b"\xff\xda") else "corrupt"


def _webp(content: bytes) -> Header:
    """Pillow would allocate the canvas before anyone could look at its size."""
    if len(content) < _unpack("<I", content, 4)[0] + 8:
        raise Undecodable("truncated", "it is shorter than it says")
    chunk = content[12:16]
    if chunk == b"VP8X":
        if _unpack("<B", content, 20)[0] & 2:
            raise Undecodable("animated", "it is animated")
        low_width, high_width, low_height, high_height = _unpack("<HBHB", content, 24)
        return Header("WEBP", low_width + (high_width << 16) + 1, low_height + (high_height << 16) + 1)
    if chunk == b"VP8L":
        (bits,) = _unpack("<I", content, 21)
        return Header("WEBP", (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
    width, height = _unpack("<HH", content, 26)
    return Header("WEBP", width & 0x3FFF, height & 0x3FFF, channels=3)
