"""What no loader can pass on this machine: decoding by libjpeg-turbo alone, resizing alone, and moving the bytes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import simplejpeg

ORIGINAL = "libjpeg-turbo decodes the originals"
PREPARED = "libjpeg-turbo decodes the prepared JPEGs"
RESIZE = "torch's antialiased uint8 resize of 200 x 200 to 224 x 224"
MEMORY = "reading 224 x 224 x 3 bytes and writing them as float32 (memcpy speed)"
BOUND_OF = {"ours, original JPEG": ORIGINAL, "ours, prepared JPEG": PREPARED, "ours, prepared raw": RESIZE}


def measure(folder: Path) -> dict[str, float]:
    from benchmarks.data.contenders import pack_of  # noqa: PLC0415  contenders import us for nothing else

    files = [path.read_bytes() for path in sorted((folder / "images").rglob("*.jpg"))[:300]]
    pack = pack_of(folder, "jpeg")
    prepared = [bytes(pack.encoded(row)) for row in range(min(300, len(pack)))]
    return {
        ORIGINAL: _decode(files),
        PREPARED: _decode(prepared),
        RESIZE: 1 / _resize_an_image(),
        MEMORY: 1 / _copy_an_image(),
    }


def _decode(files: list[bytes]) -> float:
    buffer = np.empty(2**22, np.uint8)

    def decode_all() -> None:
        for file in files:
            simplejpeg.decode_jpeg(file, buffer=buffer)

    return len(files) / _seconds(decode_all, 5)


def _resize_an_image() -> float:
    import torch  # noqa: PLC0415  the parent of the contenders needs it for this alone

    torch.set_num_threads(1)
    source = torch.randint(0, 256, (1, 258, 344, 3), dtype=torch.uint8).permute(0, 3, 1, 2)[:, :, 20:220, 30:230]
    target = torch.empty((1, 224, 224, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    resize = torch.ops.aten._upsample_bilinear2d_aa.out

    def resize_many() -> None:
        for _ in range(200):
            resize(source, [224, 224], False, None, None, out=target)

    return _seconds(resize_many, 5) / 200


def _copy_an_image() -> float:
    """Seconds in which the bytes of one image are read and four times as many written, in batches no cache holds."""
    side, batch = 224 * 224 * 3, 256
    source, target = np.ones((batch, side), np.uint8), np.ones((batch, 4, side), np.uint8)

    def copy() -> None:
        for number in range(4):
            target[:, number] = source

    return _seconds(copy, 9) / batch


def _seconds(work: Callable[[], None], times: int) -> float:
    taken = []
    for _ in range(times):
        start = time.thread_time()
        work()
        taken.append(time.thread_time() - start)
    return statistics.median(taken)


def shares(rates: dict[str, tuple[float, float]], bounds: dict[str, float]) -> list[str]:
    """Where ours stands below them."""
    return [
        f"- {name} reaches {rates[name][1] / bounds[bound]:.0%} of that limit."
        for name, bound in BOUND_OF.items()
        if name in rates
    ]
