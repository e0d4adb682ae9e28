"""Real images to check an export with, and to calibrate int8 with: as the evaluation of the training sees them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training_core.contract.errors import Failed, Reason
from training_core.data.sampler import Indices
from training_core.data.samples import IMAGE_SUFFIXES
from training_core.vision.dataset_view import Chosen
from training_core.vision.headers import Undecodable
from training_core.vision.serving_transform import picture

MOST_JUDGED, MOST_CALIBRATION = 1000, 256
MOST_BYTES = 256 * 2**20

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Pictures:
    """`judged` and `calibration` are `(images, height, width, channels) uint8`; `labels` those of `judged`, if known.

    `real` is False for noise, which shows that two graphs compute the same and nothing about accuracy.
    """

    judged: Images
    calibration: Images
    labels: Labels | None = None
    real: bool = True


def of_training(data: Chosen, side: int) -> Pictures:
    """Validation images to judge by, and training images to calibrate with, spread over their splits."""
    from training_core.vision.transforms import Recipe, Renderer  # noqa: PLC0415  this module is torch-free without it

    renderer = Renderer(data.pack, Recipe(data.pack.folder))

    def rendered(rows: Indices) -> Images:
        out = np.empty((len(rows), side, side, data.pack.channels), np.uint8)
        renderer(rows, 0, out)
        return out

    most = max(1, MOST_BYTES // (side * side * data.pack.channels))
    judged = _spread(data.splits["validation"], min(MOST_JUDGED, most))
    calibration = _spread(data.splits["train"], min(MOST_CALIBRATION, most))
    return Pictures(rendered(judged), rendered(calibration), data.labels[judged])


def of_folder(folder: Path, side: int, channels: int, classes: list[str]) -> Pictures:
    """Every image below `folder`; where all lie in folders named like classes, those are their labels.

    Raises `Failed(dataset_empty)`, and `Failed(image_corrupt)` with the name of the file.
    """
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise Failed(Reason.DATASET_EMPTY, f"{folder} holds no images", "name a folder of images for the check")
    chosen = [files[int(row)] for row in _spread(np.arange(len(files)), MOST_JUDGED)]
    images = np.stack([read_picture(path, side, channels) for path in chosen])
    names = [path.parent.name for path in chosen]
    labels = np.array([classes.index(name) for name in names]) if set(names) <= set(classes) else None
    return Pictures(images, images[_spread(np.arange(len(images)), MOST_CALIBRATION)], labels)


def read_picture(path: Path, side: int, channels: int) -> Images:
    """Raises `Failed(image_corrupt)`, with what is wrong and the name of the file."""
    try:
        return picture(path.read_bytes(), side, channels)
    except Undecodable as problem:
        raise Failed(Reason.IMAGE_CORRUPT, f"{path.name} cannot be used: {problem}", "leave this file out") from problem


def noise(side: int, channels: int) -> Pictures:
    images = np.random.default_rng(0).integers(0, 256, (16, side, side, channels), dtype=np.uint8)
    return Pictures(images, images, real=False)


def _spread(rows: Indices, most: int) -> Indices:
    return rows[np.linspace(0, len(rows) - 1, min(len(rows), most)).astype(np.int64)]
