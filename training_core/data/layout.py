"""What the folders mean: split, class, image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from training_core.data.sources import LARGEST_FILE_BYTES, Entry
from training_core.failure import Failed
from training_core.wire import Reason

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")
SPLITS = ("train", "validation", "test")
SPLIT_FOLDERS = {"train": 0, "training": 0, "val": 1, "valid": 1, "validation": 1, "test": 2, "testing": 2}
HINT = "put the images of each class into a folder of its own, optionally below train/, validation/ and test/"


@dataclass
class Layout:
    """Images in the order of the prepared arrays. `splits` index `SPLITS`; 0 also where the dataset has no split."""

    classes: list[str]
    paths: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    splits: list[int] = field(default_factory=list)
    ignored: list[dict[str, str]] = field(default_factory=list)


def read_layout(entries: Sequence[Entry], uri: str) -> Layout:
    """Raises `Failed(dataset_empty)` without images and `Failed(dataset_invalid)` with fewer than two classes."""
    images, ignored = [], []
    for entry in entries:
        name = entry.path.rsplit("/", 1)[-1]
        if name.startswith(".") or entry.path.startswith("__MACOSX/") or name == "Thumbs.db":
            continue
        if not name.lower().endswith(IMAGE_SUFFIXES):
            ignored.append({"path": entry.path, "reason": "not_an_image_file"})
        elif entry.size > LARGEST_FILE_BYTES:
            raise Failed(Reason.DATASET_INVALID, f"{entry.path} is larger than 64 MiB", "scale large images down")
        else:
            images.append(entry.path)
    if not images:
        raise Failed(Reason.DATASET_EMPTY, f"there are no images at {uri}", HINT)
    prefix = _common_folder(images)
    split_folders = _has_split_folders(images, prefix)
    placed = []
    for path in images:
        place = _place(path.removeprefix(prefix), split_folders=split_folders)
        if place is None:
            ignored.append({"path": path, "reason": "in_no_class_folder"})
        else:
            placed.append((path, *place))
    return _number(placed, ignored, uri)


def _common_folder(paths: Sequence[str]) -> str:
    """A folder that holds everything, as archives of a folder have, with its slash; empty when there is none."""
    prefix = ""
    while True:
        firsts = {path.removeprefix(prefix).split("/", 1)[0] for path in paths}
        if len(firsts) > 1 or any(path.removeprefix(prefix).count("/") < 2 for path in paths):
            return prefix
        prefix += firsts.pop() + "/"


def _has_split_folders(paths: Sequence[str], prefix: str) -> bool:
    tops = {path.removeprefix(prefix).split("/", 1)[0].lower() for path in paths}
    return tops <= SPLIT_FOLDERS.keys() and any(SPLIT_FOLDERS[top] == 0 for top in tops)


def _place(path: str, *, split_folders: bool) -> tuple[str, int] | None:
    folders = path.split("/")[:-1]
    split = SPLIT_FOLDERS[folders.pop(0).lower()] if split_folders and folders else 0
    return (folders[0], split) if folders else None


def _number(placed: list[tuple[str, str, int]], ignored: list[dict[str, str]], uri: str) -> Layout:
    classes = sorted({name for _, name, _ in placed})
    if len(classes) < 2:
        found = f"only the class {classes[0]!r}" if classes else "no class folders"
        raise Failed(Reason.DATASET_INVALID, f"{uri} has {found}; a classifier needs two classes or more", HINT)
    untrained = set(classes) - {name for _, name, split in placed if split == 0}
    if untrained:
        raise Failed(Reason.DATASET_INVALID, f"the class {min(untrained)!r} of {uri} has no training images", HINT)
    index = {name: number for number, name in enumerate(classes)}
    layout = Layout(classes, ignored=ignored)
    for path, name, split in placed:
        layout.paths.append(path)
        layout.labels.append(index[name])
        layout.splits.append(split)
    return layout
