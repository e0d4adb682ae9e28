"""What the folders mean: split, class, image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa

from training_core.contract.errors import Failed, Reason
from training_core.data.formats.context import Context, Opened
from training_core.data.formats.reader import FileReader
from training_core.data.formats.splits import SPLIT_NAMES, UNSPLIT
from training_core.data.formats.survey import is_hidden
from training_core.data.formats.writer import Rows, SampleWriter
from training_core.data.listing import fingerprints
from training_core.data.samples import IMAGE_SUFFIXES

HINT = "put the images of each class into a folder of its own, optionally below train/, validation/ and test/"
Place = tuple[int, int]  # class, split


def open_class_folders(context: Context) -> Opened:
    """Raises `Failed(dataset_empty)` without images and `Failed(dataset_invalid)` with fewer than two classes."""
    if not context.survey.images:
        raise Failed(Reason.DATASET_EMPTY, f"there are no images at {context.uri}", HINT)
    writer = context.writer("class-folders")
    places = {
        folder: (writer.number(name), split) for folder, (name, split) in class_places(context.survey.folders).items()
    }
    for rows in _rows(context, places, writer):
        writer.add(rows)
    samples = writer.finish()
    return samples, FileReader(context.source, context.listing, samples)


def class_places(folders: Iterable[str]) -> dict[str, tuple[str, int]]:
    """Class and split of each folder with images; one without a class is left out."""
    paths = [folder.split("/") if folder else [] for folder in folders]
    skip = _common_depth(paths)
    below = [path[skip:] for path in paths]
    tops = {path[0].lower() if path else "" for path in below}
    split_folders = tops <= SPLIT_NAMES.keys() and any(SPLIT_NAMES[top] == 0 for top in tops)
    found = {}
    for folder, path in zip(folders, below, strict=True):
        split = SPLIT_NAMES[path[0].lower()] if split_folders else UNSPLIT
        rest = path[1:] if split_folders else path
        if rest:
            found[folder] = (rest[0], split)
    return found


def _common_depth(paths: list[list[str]]) -> int:
    """How many folders hold everything, as archives of a folder have; the folder of a class is none of them."""
    depth = 0
    while len({path[depth] if len(path) > depth else None for path in paths}) == 1 and min(map(len, paths)) > depth + 1:
        depth += 1
    return depth


def _rows(context: Context, places: dict[str, Place], writer: SampleWriter) -> Iterator[Rows]:
    first = 0
    for chunk in context.listing.chunks():
        chosen, labels, splits = [], [], []
        for index, path in enumerate(chunk.column("path").to_pylist()):
            folder, _, name = path.rpartition("/")
            place = places.get(folder)
            if name.lower().endswith(IMAGE_SUFFIXES) and not is_hidden(folder, name):
                if place is None:
                    writer.ignore(path, "in_no_class_folder")
                    continue
                chosen.append(index)
                labels.append(place[0])
                splits.append(place[1])
            elif not is_hidden(folder, name):
                writer.ignore(path, "not_an_image_file")
        picked = chunk.take(pa.array(chosen, pa.int64()))
        sizes = picked.column("size").to_numpy()
        yield Rows(
            paths=picked.column("path"),
            sizes=sizes,
            fingerprints=fingerprints(sizes, picked.column("stamp").to_numpy()),
            labels=np.array(labels, np.int32),
            splits=np.array(splits, np.int8),
            entries=np.array(chosen, np.int64) + first,
        )
        first += chunk.num_rows
