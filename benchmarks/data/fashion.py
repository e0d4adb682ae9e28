"""The whole of Fashion-MNIST (Xiao, Rasul & Vollgraf 2017), 70,000 images, as files in class folders."""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

ORIGINAL = Path("/usr/share/datasets/fashion-mnist")
PARTS = {"train": "train", "test": "t10k"}


def read_part(part: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images `(n, 28, 28)` and labels."""
    if not ORIGINAL.exists():
        sys.exit("apt-get install dataset-fashion-mnist brings the data that this benchmark needs")
    images = np.frombuffer(gzip.decompress((ORIGINAL / f"{part}-images-idx3-ubyte.gz").read_bytes()), np.uint8, -1, 16)
    labels = np.frombuffer(gzip.decompress((ORIGINAL / f"{part}-labels-idx1-ubyte.gz").read_bytes()), np.uint8, -1, 8)
    return images.reshape(-1, 28, 28), labels


def make_png_folder(folder: Path, splits: tuple[str, ...] = ("train", "test")) -> Path:
    """`folder/train/3/00017.png` …; done once."""
    if (folder / "complete").exists():
        return folder / "images"
    for split in splits:
        for label in range(10):
            (folder / "images" / split / str(label)).mkdir(parents=True, exist_ok=True)
        for number, (image, label) in enumerate(zip(*read_part(PARTS[split]), strict=True)):
            Image.fromarray(image).save(folder / "images" / split / str(label) / f"{number:05}.png")
    (folder / "complete").touch()
    return folder / "images"
