"""Makes `fashion-mnist-sample.zip`: 6,000 training and 1,000 test images of Fashion-MNIST as PNG files by class.

    apt-get install dataset-fashion-mnist
    python examples/data/make_sample.py

The archive is the same byte for byte on every run with the same Pillow and zlib: the first images of each class are
taken in their order, and no time of day is stored. Licence of the images: LICENSE-fashion-mnist.txt (MIT, Zalando SE).
"""

from __future__ import annotations

import argparse
import gzip
import io
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

CLASSES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle-boot")
IMAGES_PER_CLASS = {"train": 600, "test": 100}
IDX_PREFIX = {"train": "train", "test": "t10k"}
IDX_IMAGE_HEADER_BYTES = 16
IDX_LABEL_HEADER_BYTES = 8
SIDE_PIXELS = 28


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--idx", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("fashion-mnist-sample.zip"))
    arguments = parser.parse_args()
    with zipfile.ZipFile(arguments.out, "w") as archive:
        for split in IMAGES_PER_CLASS:
            add_split(archive, split, *read_idx(arguments.idx, IDX_PREFIX[split]))
    print(f"{arguments.out}: {arguments.out.stat().st_size:,} bytes")


def read_idx(folder: Path, prefix: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images `(count, 28, 28)` and labels `(count,)` of one IDX pair."""
    pixels = gzip.decompress((folder / f"{prefix}-images-idx3-ubyte.gz").read_bytes())[IDX_IMAGE_HEADER_BYTES:]
    labels = gzip.decompress((folder / f"{prefix}-labels-idx1-ubyte.gz").read_bytes())[IDX_LABEL_HEADER_BYTES:]
    images = np.frombuffer(pixels, np.uint8).reshape(-1, SIDE_PIXELS, SIDE_PIXELS)
    return images, np.frombuffer(labels, np.uint8)


def add_split(archive: zipfile.ZipFile, split: str, images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> None:
    for index, name in enumerate(CLASSES):
        for position in np.flatnonzero(labels == index)[: IMAGES_PER_CLASS[split]]:
            member = zipfile.ZipInfo(f"{split}/{name}/{position:05d}.png", date_time=(2017, 8, 25, 0, 0, 0))
            # PNG is compressed already; storing it lets a reader seek to any image.
            archive.writestr(member, png(images[position]), zipfile.ZIP_STORED)


def png(image: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


if __name__ == "__main__":
    main()
