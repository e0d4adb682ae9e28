"""How a dataset is packed: the size, the channels and the encoding, from the headers of images spread over it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from training_core.contract.spec import JobSpec
from training_core.data.meta import Encoding
from training_core.data.samples import Content, Reader
from training_core.vision.decode import decode
from training_core.vision.headers import Undecodable, read_header
from training_core.vision.resize import packed_size

PROBED_IMAGES = 64
SMALL_SIDE = 96
LARGEST_AUTO_SIDE = 224
JPEG_BYTES_A_PIXEL = 0.35  # quality 90, photographs
ROW_BYTES = 256

Probed = tuple[int, int, int]


class Packing(BaseModel):
    """Written down before the first image is packed, so that a preparation that was cut short goes on as it began."""

    model_config = ConfigDict(frozen=True)

    image_size: int
    image_size_reason: str
    channels: int
    encoding: Encoding
    expected_bytes: int


def probed_rows(count: int) -> list[int]:
    return sorted({round(row) for row in np.linspace(0, count - 1, min(count, PROBED_IMAGES))})


def choose_packing(
    spec: JobSpec, count: int, source_bytes: int, probed: list[Probed], before: Encoding | None = None
) -> Packing:
    """`probed` images stand for all `count`, whose files take `source_bytes`.

    `auto` keeps the encoding of an earlier version, `before`: only then can its images be taken over.
    """
    image_size, reason = _image_size(spec, probed)
    channels = 1 if probed and all(channels == 1 for *_, channels in probed) else 3
    areas = [width * height for width, height in (packed_size(w, h, image_size) for w, h, _ in probed)]
    pixels = count * (float(np.mean(areas)) if areas else image_size**2)
    expected = {"raw": pixels * channels, "jpeg": pixels * JPEG_BYTES_A_PIXEL, "original": float(source_bytes)}
    encoding: Encoding
    if spec.dataset.packing == "auto":
        encoding = before or ("raw" if expected["raw"] <= free_memory_bytes() / 2 else "jpeg")
    else:
        encoding = spec.dataset.packing
    return Packing(
        image_size=image_size,
        image_size_reason=reason,
        channels=channels,
        encoding=encoding,
        expected_bytes=round(expected[encoding]) + count * ROW_BYTES,
    )


def probe(reader: Reader, rows: list[int]) -> dict[int, Probed]:
    """Upright width, height and channels; images that cannot be decoded are left to the pass over all of them."""
    return {row: facts for row, content in reader.read(rows) if (facts := _facts(content)) is not None}


def _facts(content: Content) -> Probed | None:
    if isinstance(content, np.ndarray):
        height, width, channels = content.shape
        return width, height, channels
    if not isinstance(content, bytes):
        return None
    try:
        header = read_header(content)
        channels = header.channels or decode(content, header).shape[2]
    except Undecodable:
        return None
    return (*header.upright, channels)


def _image_size(spec: JobSpec, probed: Iterable[Probed]) -> tuple[int, str]:
    wanted = spec.training.image_size
    if isinstance(wanted, int):
        return wanted, "as requested"
    sides = [min(width, height) for width, height, _ in probed]
    median = max(8, int(np.median(sides))) if sides else 8
    if median <= SMALL_SIDE:
        return median, f"the images' own size ({median} px)"
    return min(median, LARGEST_AUTO_SIDE), f"the shorter sides measure {median} px in the median"


def free_memory_bytes() -> int:
    """What the host, or the control group where that is smaller, could still give without swapping."""
    free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        words = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        free = int(words.get("MemAvailable", f"{free // 1024} kB").split()[0]) * 1024
    group = Path("/sys/fs/cgroup")
    limit, used = group / "memory.max", group / "memory.current"
    if limit.exists() and used.exists() and (allowed := limit.read_text().strip()) != "max":
        free = min(free, max(0, int(allowed) - int(used.read_text())))
    return free
