"""A manifest lists images by path with their labels: CSV, JSON lines or Parquet, one file or one for each split."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from training_core.contract.errors import Failed, Reason
from training_core.data.bombs import being_read
from training_core.data.formats.columns import Interpreter, Values, choose, find_image, find_label, invalid
from training_core.data.formats.context import Context, Opened
from training_core.data.formats.paths_index import PathsIndex
from training_core.data.formats.reader import FileReader
from training_core.data.formats.splits import UNSPLIT, split_in
from training_core.data.formats.tables import chunks, header
from training_core.data.formats.writer import Rows, SampleWriter
from training_core.data.listing import Listing, fingerprints, write_listing
from training_core.data.sources.places import check_name
from training_core.data.sources.source import Finds

MANIFEST_WORDS = (
    "metadata",
    "manifest",
    "labels",
    "annotations",
    "index",
    "train",
    "val",
    "valid",
    "validation",
    "dev",
    "test",
)
MOST_MANIFESTS = 1000


def find_manifests(context: Context) -> list[tuple[int, str]]:
    """Tables with a column of images and one of labels; where some are named like a manifest, those alone."""
    survey = context.survey
    candidates = sorted(survey.manifests + survey.parquet, key=lambda one: (one[1].count("/"), one[1]))[:MOST_MANIFESTS]
    found = []
    for row, path in candidates:
        names = _header(context, row, path)
        if find_image(names, context.dataset) and find_label(names, context.dataset):
            found.append((row, path))
    return [one for one in found if is_named_like_one(one[1])] or found


def is_named_like_one(path: str) -> bool:
    """A table beside class folders is taken for the manifest only when its name says so."""
    return path.rpartition("/")[2].partition(".")[0].lower() in MANIFEST_WORDS


def open_manifest(context: Context) -> Opened:
    """Raises `Failed(dataset_invalid)` naming the file, the row and the column that is wrong."""
    manifests = find_manifests(context)
    if not manifests:
        raise _none(context)
    writer = context.writer("manifest")
    finder = _finder(context)
    for row, path in manifests:
        given = split_in(path) if len(manifests) > 1 else UNSPLIT
        with context.source.open(context.listing.entry(row)) as file:
            chosen = choose(_header(context, row, path), context.dataset, path)
            interpreter = Interpreter(path, chosen, given)
            with being_read(path):
                for first, columns in chunks(file, path, [chosen.image, *chosen.names()]):
                    names = [_name(value, path, first + i) for i, value in enumerate(columns[chosen.image])]
                    writer.add(
                        _rows(writer, finder, path.rpartition("/")[0], names, interpreter.values(columns, first))
                    )
    listing = finder.listing()
    samples = writer.finish()
    return samples, FileReader(context.source, listing, samples)


def _header(context: Context, row: int, path: str) -> list[str]:
    with context.source.open(context.listing.entry(row)) as file:
        return header(file, path)


def _none(context: Context) -> Failed:
    survey = context.survey
    for row, path in (survey.manifests + survey.parquet)[:1]:
        choose(_header(context, row, path), context.dataset, path)
    return Failed(
        Reason.DATASET_EMPTY,
        f"there is no manifest at {context.uri}",
        "give a CSV, JSONL or Parquet file with paths and labels",
    )


def _name(value: object, path: str, row: int) -> str:
    if not isinstance(value, str) or not value.strip():
        raise invalid(f"row {row} of {path}", "names no image", "correct it, or take it out")
    return check_name(value.removeprefix("./"), f"row {row} of {path}")


def _rows(writer: SampleWriter, finder: Finder, folder: str, names: list[str], values: Values) -> Rows:
    beside = [f"{folder}/{name}" for name in names] if folder else names
    entries, sizes, stamps, paths = finder.find(beside, names)
    return Rows(
        paths=pa.array(paths, pa.large_string()),
        sizes=sizes,
        fingerprints=fingerprints(sizes, stamps),
        labels=writer.numbers(values.names),
        entries=entries,
        **values.extra(),
    )


Found = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint64], list[str]]


class Finder(Protocol):
    def find(self, beside: list[str], names: list[str]) -> Found:
        """Rows of the listing (-1: no such file), sizes, stamps, paths; beside the manifest, else from the top."""
        ...

    def listing(self) -> Listing: ...


def _finder(context: Context) -> Finder:
    if isinstance(context.source, Finds):
        return _AskingFinder(context.source, context.folder)
    return _ListedFinder(context.around())


class _ListedFinder:
    def __init__(self, listing: Listing) -> None:
        self._listing, self._index = listing, PathsIndex(listing)

    def find(self, beside: list[str], names: list[str]) -> Found:
        rows = self._index.rows(beside)
        fallback = rows < 0
        rows[fallback] = self._index.rows(names)[fallback]
        sizes, stamps = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.uint64)
        table = self._listing.take(rows[rows >= 0])
        sizes[rows >= 0] = table.column("size").to_numpy()
        stamps[rows >= 0] = table.column("stamp").to_numpy()
        found = iter(table.column("path").to_pylist())
        return rows, sizes, stamps, [next(found) if row >= 0 else path for row, path in zip(rows, beside, strict=True)]

    def listing(self) -> Listing:
        return self._listing


class _AskingFinder:
    """For places where asking for each file is quicker than listing all, or all there is."""

    def __init__(self, source: Finds, folder: Path) -> None:
        self._source, self._folder, self._count, self._parts = source, folder, 0, list[Path]()

    def find(self, beside: list[str], names: list[str]) -> Found:
        entries = list(self._source.find(beside))
        missing = [i for i, entry in enumerate(entries) if entry is None and beside[i] != names[i]]
        for i, entry in zip(missing, self._source.find([names[i] for i in missing]), strict=True):
            entries[i] = entry
        there = [entry for entry in entries if entry is not None]
        file = self._folder / f"found-{len(self._parts)}.arrow"
        write_listing(there, file)
        self._parts.append(file)
        rows = np.full(len(entries), -1, np.int64)
        rows[[i for i, entry in enumerate(entries) if entry is not None]] = self._count + np.arange(len(there))
        self._count += len(there)
        sizes = np.array([entry.size if entry else 0 for entry in entries], np.int64)
        stamps = np.array([entry.stamp if entry else 0 for entry in entries], np.uint64)
        return rows, sizes, stamps, [entry.path if entry else path for entry, path in zip(entries, beside, strict=True)]

    def listing(self) -> Listing:
        return Listing(*self._parts)
