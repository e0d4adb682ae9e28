"""Images of all kinds come out upright and complete; whatever is not one is found, at no cost."""

from __future__ import annotations

import io
import struct
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.data.pictures import hollow_png, image_file, photo
from training_core.vision.decode import decode, decode_file, turn
from training_core.vision.headers import Undecodable, exif_orientation, read_header
from training_core.vision.resize import cover, packed_size, resize


def finding(content: bytes) -> str:
    with pytest.raises(Undecodable) as caught:
        decode_file(content, 3)
    assert str(caught.value)
    return caught.value.finding


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_is_applied(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    content = image_file(photo(37, 53), kind, exif=exif, **options)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))))
    pixels = decode_file(content, 3)
    assert pixels.shape == expected.shape
    assert np.abs(pixels.astype(int) - expected).max() <= 3


@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_of_both_byte_orders(order: str) -> None:
    mark = b"II*\0" if order == "<" else b"MM\0*"
    entry = struct.pack(f"{order}HHIHH", 0x0112, 3, 1, 6, 0)
    assert exif_orientation(mark + struct.pack(f"{order}IH", 8, 1) + entry) == 6


@pytest.mark.parametrize("exif", [b"", b"II*\0", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff", b"nonsense"])
def test_broken_exif_turns_nothing(exif: bytes) -> None:
    assert exif_orientation(exif) == 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_arrays_are_contiguous(orientation: int) -> None:
    assert turn(photo(5, 9), orientation).flags.c_contiguous


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "JPEG", "WEBP"])
@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_every_mode_becomes_one_or_three_channels(kind: str, mode: str) -> None:
    if (kind, mode) == ("JPEG", "P"):
        pytest.skip("JPEG has no palettes")
    content = image_file(photo(20, 30), kind, mode)
    for channels in (1, 3):
        assert decode_file(content, channels).shape == (20, 30, channels)


def test_transparent_parts_become_white() -> None:
    pixels = np.zeros((4, 6, 4), np.uint8)
    pixels[:, :3, 3] = 255
    out = decode_file(image_file(pixels), 3)
    assert (out[:, :3] == 0).all()
    assert (out[:, 3:] == 255).all()


def test_a_palette_with_transparency_becomes_white() -> None:
    content = image_file(photo(8, 8), "PNG", "P", transparency=0)
    indices = np.asarray(Image.open(io.BytesIO(content)))
    assert (decode_file(content, 3)[indices == 0] == 255).all()


def test_sixteen_bit_grey_keeps_its_range() -> None:
    grey = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, "PNG")
    assert (decode_file(buffer.getvalue(), 1)[:, :, 0] == np.arange(256).reshape(16, 16)).all()


def test_cmyk_is_converted() -> None:
    pixels = photo(40, 40)
    out = decode_file(image_file(pixels, "JPEG", "CMYK", quality=95), 3)
    assert np.abs(out.astype(int) - pixels).mean() < 8


def test_pngs_are_decoded_as_pillow_does() -> None:
    for channels in (1, 3):
        for seed in range(20):
            content = image_file(photo(seed + 1, 2 * seed + 1, channels, seed))
            expected = np.asarray(Image.open(io.BytesIO(content))).reshape(seed + 1, 2 * seed + 1, channels)
            assert (decode_file(content, channels) == expected).all()


@pytest.mark.parametrize(
    ("kind", "options"),
    [("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("WEBP", {}), ("WEBP", {"lossless": True})],
)
def test_an_image_cut_anywhere_is_found(kind: str, options: dict[str, object]) -> None:
    content = image_file(photo(), kind, **options)
    for end in [*range(0, len(content), 7), *range(len(content) - 40, len(content))]:
        assert finding(content[:end]) in {"truncated", "corrupt", "empty", "wrong_type"}, end
    assert finding(content[: len(content) // 2]) == "truncated"


@pytest.mark.parametrize("kind", ["GIF", "BMP"])
def test_formats_without_an_end_are_missed_by_a_byte_or_three_at_most(kind: str) -> None:
    content = image_file(photo(), kind)
    for end in range(0, len(content) - 3, 5):
        finding(content[:end])


def test_a_png_with_a_flipped_bit_is_found() -> None:
    content = image_file(photo())
    for at in range(8, len(content), 11):
        damaged = bytearray(content)
        damaged[at] ^= 4
        assert finding(bytes(damaged)) in {"corrupt", "truncated", "bomb"}


def test_a_jpeg_with_a_tail_of_zeros_is_found() -> None:
    content = image_file(photo(), "JPEG")
    half = len(content) // 2
    assert finding(content[:half] + bytes(len(content) - half)) in {"truncated", "corrupt"}


def test_a_little_padding_before_the_end_of_a_jpeg_is_harmless() -> None:
    content = image_file(photo(), "JPEG")
    assert decode_file(content[:-2] + b"\0\0" + content[-2:], 3).shape == (60, 80, 3)
    assert finding(content[:-2] + bytes(300) + content[-2:]) == "corrupt"


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"<!DOCTYPE html><html>", "HTML"),
        (b"\xef\xbb\xbf  <svg>", "SVG"),
        (b'{"error": "not found"}', "JSON"),
        (b"%PDF-1.7", "PDF"),
        (b"PK\x03\x04 and so on", "ZIP"),
        (b"\0\0\0\x18ftypheic", "HEIC"),
        (b"II*\0\x08\0\0\0", "TIFF"),
        (bytes(1000), "zeros"),
        (b"hello", "something else"),
    ],
)
def test_what_is_no_image_is_named(content: bytes, word: str) -> None:
    with pytest.raises(Undecodable, match=word) as caught:
        decode_file(content, 3)
    assert caught.value.finding == "wrong_type"


def test_an_empty_file() -> None:
    assert finding(b"") == "empty"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "WEBP"])
def test_a_signature_alone_is_no_image(kind: str) -> None:
    for length in (12, 20, 26):
        finding(image_file(photo(), kind)[:length])


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_animations_are_found(kind: str) -> None:
    frames = [Image.fromarray(photo(seed=seed)) for seed in range(3)]
    buffer = io.BytesIO()
    frames[0].save(buffer, kind, save_all=True, append_images=frames[1:])
    assert finding(buffer.getvalue()) == "animated"


def test_a_polyglot_is_the_image_that_it_begins_as() -> None:
    for kind in ("JPEG", "PNG"):
        content = image_file(photo(), kind)
        assert (decode_file(content + b"PK\x03\x04" + b"<script>", 3) == decode_file(content, 3)).all()


def test_the_name_of_the_content_counts_not_that_of_the_file() -> None:
    """A PNG that is called .jpg is a PNG: decode_file never sees a name."""
    assert read_header(image_file(photo(), "PNG")).kind == "PNG"


@pytest.mark.parametrize(
    "content",
    [
        hollow_png(65_000, 65_000),
        hollow_png(2**31 - 1, 1),
        hollow_png(9_000, 9_000),
        b"BM" + struct.pack("<IHHIIiiHH", 100, 0, 0, 54, 40, 30_000, -30_000, 1, 24) + bytes(40),
        b"GIF89a" + struct.pack("<HH", 65_535, 65_535) + bytes(20),
        b"RIFF" + struct.pack("<I", 30) + b"WEBPVP8X" + struct.pack("<IB", 10, 0) + bytes(3) + b"\xff" * 6 + bytes(8),
    ],
    ids=["png", "png-line", "png-81-megapixels", "bmp", "gif", "webp"],
)
def test_a_bomb_is_found_by_its_header(content: bytes) -> None:
    assert finding(content) == "bomb"


def test_a_jpeg_of_thousands_of_scans_is_a_bomb() -> None:
    content = image_file(photo(), "JPEG", progressive=True)
    start = content.index(b"\xff\xda")
    assert finding(content[:start] + content[start:-2] * 60 + content[-2:]) == "bomb"


HOSTILE = """
import sys
from tests.data.pictures import hollow_png, image_file, photo, with_chunk
from tests.waiting import peak
import zlib
from training_core.vision.decode import decode_file
from training_core.vision.headers import Undecodable
plain = image_file(photo())
packer = zlib.compressobj(9)
blob = b"".join(packer.compress(bytes(2**20)) for _ in range(400)) + packer.flush()
hostile = [hollow_png(65_000, 65_000), *(with_chunk(plain, name, head + blob) for name, head in (
    (b"iCCP", b"p\\0\\0"), (b"zTXt", b"k\\0\\0"), (b"iTXt", b"k\\0\\1\\0\\0\\0")))]
decode_file(plain, 3)
before = peak()
for content in hostile * 3:
    try:
        assert decode_file(content, 3).shape == (60, 80, 3)
    except Undecodable as problem:
        assert problem.finding == "bomb"
after = peak()
print(after - before)
assert "torch" not in sys.modules
"""


def test_bombs_and_huge_profiles_cost_no_memory() -> None:
    done = subprocess.run([sys.executable, "-c", HOSTILE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 20 * 1024, "kibibytes beyond what the test itself holds"


def test_a_large_jpeg_is_scaled_while_it_is_decoded_but_never_below_what_is_wanted() -> None:
    content = image_file(photo(800, 1200), "JPEG")
    header = read_header(content)
    pixels = decode(content, header, 3, (345, 230))
    assert pixels.shape[0] >= 230
    assert pixels.shape[1] >= 345
    assert pixels.shape[0] < 800
    assert decode(content, header, 3, (900, 600)).shape == (800, 1200, 3)


@pytest.mark.parametrize(
    ("size", "side", "expected"),
    [
        ((28, 28), 28, (28, 28)),
        ((500, 375), 224, (344, 258)),
        ((375, 500), 224, (258, 344)),
        ((100, 90), 224, (100, 90)),
    ],
)
def test_the_packed_size_is_never_larger(size: tuple[int, int], side: int, expected: tuple[int, int]) -> None:
    assert packed_size(*size, side) == expected


def test_the_resize_is_antialiased() -> None:
    """A checkerboard of single pixels becomes grey; a resize without antialiasing keeps some of its squares."""
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)[:, :, None]
    small = resize(board, 16, 16)
    assert np.abs(small.astype(int) - 127).max() <= 16


@pytest.mark.parametrize(("height", "width"), [(40, 40), (60, 40), (40, 61), (32, 50), (20, 20)])
def test_cover_takes_the_middle(height: int, width: int) -> None:
    pixels = photo(height, width)
    covered = cover(pixels, 32)
    assert covered.shape == (32, 32, 3)
    expected = ImageOps.fit(Image.fromarray(pixels), (32, 32), Image.Resampling.BILINEAR)
    assert np.abs(covered.astype(int) - np.asarray(expected)).mean() < 3
