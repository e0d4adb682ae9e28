"""What the table of recorded trainings is made of: the grid, the specs of its trainings, and their data."""

from __future__ import annotations

import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.data.fashion import read_part
from benchmarks.search.courses import TABLES, Choice
from training_core.contract.run_dir import RunDir, RunSpec
from training_core.contract.spec import JobSpec

ROOT = Path(__file__).parents[2]
WORK = ROOT / ".trainyard" / "search-table"
TRAIN_IMAGES, VALIDATION_IMAGES, SIDE = 6000, 2000, 14
GRID: dict[str, list[Any]] = {
    "training.optimizer.learning_rate": [2e-4, 1e-3, 5e-3, 2.5e-2, 0.125, 0.6],
    "training.optimizer.weight_decay": [1e-5, 1e-2, 0.5],
    "training.batch_size": [64, 256, 1024],
    "training.optimizer.name": ["adamw", "sgd"],
    "training.augmentation.preset": ["none", "light"],
}


@dataclass(frozen=True)
class Making:
    """What the table `name` is made of: the training images from `first_row` on, of those that are there."""

    name: str
    network: str
    epochs: int
    seed: int
    first_row: int

    @property
    def folder(self) -> Path:
        return WORK / TABLES[self.name].name.partition(".")[0]

    @property
    def progress(self) -> Path:
        return self.folder / "courses.jsonl"


MAKINGS = [
    Making("first", "small_cnn", 6, 0, 0),
    Making("second", "small_resnet", 6, 1, 20_000),
    Making("third", "small_cnn", 12, 2, 40_000),
]


def values_of(choice: Choice) -> dict[str, Any]:
    return {path: values[index] for (path, values), index in zip(GRID.items(), choice, strict=True)}


def spec_of(making: Making, choice: Choice) -> JobSpec:
    values = values_of(choice)
    training = {
        "epochs": making.epochs,
        "image_size": SIDE,
        "seed": making.seed,
        "early_stopping": None,
        "batch_size": values["training.batch_size"],
        "augmentation": values["training.augmentation.preset"],
        "optimizer": {
            "name": values["training.optimizer.name"],
            "learning_rate": values["training.optimizer.learning_rate"],
            "weight_decay": values["training.optimizer.weight_decay"],
        },
    }
    cleaning = {"exact_duplicates": "flag", "leakage": "flag"}  # exactly the images that the table names
    return JobSpec.model_validate(
        {
            "task": "image-classification",
            "dataset": {"uri": f"file://{making.folder}/idx", "cleaning": cleaning},
            "model": {"name": making.network},
            "training": training,
        }
    )


def prepare(making: Making) -> None:
    """Both parts come from Fashion-MNIST's training images: its test images judge no choice here."""
    folder, run_dir = making.folder, RunDir(making.folder / "prepared")
    if run_dir.prepared.exists():
        return
    write_idx(folder / "idx", making.first_row)
    run_dir.path.mkdir(exist_ok=True)
    spec, store = spec_of(making, (0,) * len(GRID)), f"file://{folder}/store"
    run_dir.write_spec(RunSpec(spec=spec, store=store, cache_dir=folder / "cache", data_roots=[folder]))
    stage = [sys.executable, "-m", "training_core.runtime.launch", "--stage", "prepare", str(run_dir.path)]
    subprocess.run(stage, cwd=ROOT, check=True)


def write_idx(folder: Path, first: int) -> None:
    """Training images from row `first` on, validation images as far from the end."""
    folder.mkdir(exist_ok=True)
    images, labels = read_part("train")
    end = len(images) - first
    parts = {"train": slice(first, first + TRAIN_IMAGES), "validation": slice(end - VALIDATION_IMAGES, end)}
    for name, rows in parts.items():
        for kind, array in (("images-idx3-ubyte", images[rows]), ("labels-idx1-ubyte", labels[rows])):
            header = struct.pack(f">{1 + array.ndim}I", 0x0800 + array.ndim, *array.shape)
            (folder / f"{name}-{kind}").write_bytes(header + array.tobytes())
