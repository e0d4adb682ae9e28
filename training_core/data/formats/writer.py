"""Writes the samples table in two passes over the disk: classes are numbered when all their names are known."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from training_core.contract.errors import Failed, Reason
from training_core.data.samples import SAMPLES_SCHEMA, Samples

MOST_CLASSES = 100_000
LONGEST_CLASS_NAME = 200
HASHED = ("path", "size", "fingerprint", "label", "split", "weight", "difficulty", "group")


@dataclass
class Rows:
    """A chunk of samples. `labels` are numbers given by `SampleWriter.number`, `entries` rows of the listing."""

    paths: pa.Array
    sizes: NDArray[np.int64]
    fingerprints: NDArray[np.uint64]
    labels: NDArray[np.int32]
    splits: NDArray[np.int8]
    entries: NDArray[np.int64]
    files: pa.Array | None = None
    offsets: NDArray[np.int64] | None = None
    weights: pa.Array | None = None
    difficulties: pa.Array | None = None
    groups: pa.Array | None = None

    def batch(self) -> pa.RecordBatch:
        count = len(self.paths)
        columns = [
            self.paths,
            self.files if self.files is not None else pa.nulls(count, pa.large_string()),
            pa.array(self.offsets if self.offsets is not None else np.full(count, -1, np.int64)),
            pa.array(self.sizes),
            pa.array(self.fingerprints),
            pa.array(self.labels),
            pa.array(self.splits),
            self.weights if self.weights is not None else pa.nulls(count, pa.float32()),
            self.difficulties if self.difficulties is not None else pa.nulls(count, pa.float32()),
            self.groups if self.groups is not None else pa.nulls(count, pa.int64()),
        ]
        return pa.RecordBatch.from_arrays(columns, schema=SAMPLES_SCHEMA)


class SampleWriter:
    """`ignore` notes a file that is no sample."""

    def __init__(self, folder: Path, uri: str, form: str) -> None:
        self._uri, self._form, self._folder = uri, form, folder
        self._names: dict[str, int] = {}
        self._trained: set[int] = set()
        self._hashes: list[NDArray[np.int64]] = []
        self._ignored: list[dict[str, str]] = []
        self._ignored_count = 0
        self._sink = pa.OSFile(str(folder / "unnumbered.arrow"), "wb")
        self._out = pa.ipc.new_file(self._sink, SAMPLES_SCHEMA)
        self._entries = (folder / "entries.int64").open("wb")

    def ignore(self, path: str, reason: str) -> None:
        self._ignored_count += 1
        if len(self._ignored) < 1000:
            self._ignored.append({"path": path, "reason": reason})

    def number(self, name: str) -> int:
        """Of a class, in the order of first sight. Raises `Failed(dataset_invalid)` for names that cannot be meant."""
        number = self._names.get(name)
        if number is None:
            if not name.strip() or len(name) > LONGEST_CLASS_NAME or not name.isprintable():
                raise self._invalid(f"has a class called {name[:60]!r}", "give every class a short printable name")
            if len(self._names) == MOST_CLASSES:
                raise self._invalid(f"has more than {MOST_CLASSES:,} classes", "check that the labels are classes")
            number = self._names[name] = len(self._names)
        return number

    def numbers(self, names: pa.Array) -> NDArray[np.int32]:
        """Of each name in a string array without nulls."""
        encoded = names.dictionary_encode()
        known = np.array([self.number(name) for name in encoded.dictionary.to_pylist()], np.int32)
        picked: NDArray[np.int32] = known[encoded.indices.to_numpy()] if len(known) else np.zeros(0, np.int32)
        return picked

    def add(self, rows: Rows) -> None:
        if not len(rows.paths):
            return
        self._out.write_batch(rows.batch())
        rows.entries.astype(np.int64).tofile(self._entries)
        paths = rows.paths.to_pylist()
        self._hashes.append(np.fromiter(map(hash, paths), np.int64, len(paths)))
        self._trained.update(np.unique(rows.labels[rows.splits <= 0]).tolist())

    def close(self) -> None:
        """Also where nothing was finished."""
        if not self._sink.closed:
            self._out.close()
            self._sink.close()
        self._entries.close()

    def finish(self) -> Samples:
        """Raises `Failed(dataset_empty)`, and `Failed(dataset_invalid)` with fewer than two classes or a path twice."""
        self.close()
        classes = sort_classes(list(self._names))
        self._check(classes)
        file, digest = self._number_all(classes)
        return Samples(self._uri, self._form, file, classes, digest, self._ignored, self._ignored_count)

    def _check(self, classes: list[str]) -> None:
        if len(classes) < 2:
            found = f"only the class {classes[0]!r}" if classes else "no class folders"
            hint = "put the images of each class into a folder of its own, or give a manifest with a label column"
            raise self._invalid(f"has {found}; a classifier needs two classes or more", hint)
        untrained = [name for name in classes if self._names[name] not in self._trained]
        if untrained:
            raise self._invalid(
                f"has no training images of the class {untrained[0]!r}",
                "add some, or take the class out of the other splits",
            )
        hashes = np.concatenate(self._hashes)
        self._hashes.clear()
        hashes.sort()
        twice = set(hashes[1:][hashes[1:] == hashes[:-1]].tolist())
        if twice:
            self._check_names(twice)

    def _check_names(self, suspects: set[int]) -> None:
        seen: set[str] = set()
        for batch in self._batches():
            for path in batch.column("path").to_pylist():
                if hash(path) in suspects:
                    if path in seen:
                        raise self._invalid(f"names {path[:200]!r} twice", "give each image once, with one label")
                    seen.add(path)

    def _batches(self) -> Iterator[pa.RecordBatch]:
        with pa.OSFile(str(self._folder / "unnumbered.arrow")) as source:  # mapped pages would stay in memory
            reader = pa.ipc.open_file(source)
            for index in range(reader.num_record_batches):
                yield reader.get_batch(index)

    def _number_all(self, classes: list[str]) -> tuple[Path, str]:
        final = np.empty(len(classes), np.int32)
        for number, name in enumerate(classes):
            final[self._names[name]] = number
        digests: dict[str, Any] = {name: hashlib.blake2b(digest_size=32) for name in HASHED}
        position = SAMPLES_SCHEMA.get_field_index("label")
        file = self._folder / "samples.arrow"
        with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, SAMPLES_SCHEMA) as out:
            for batch in self._batches():
                labels = pa.array(final[batch.column("label").to_numpy()])
                numbered = batch.set_column(position, SAMPLES_SCHEMA.field("label"), labels)
                out.write_batch(numbered)
                for name in HASHED:
                    _hash_column(digests[name], numbered.column(name))
        (self._folder / "unnumbered.arrow").unlink()
        whole = hashlib.sha256("\0".join(classes).encode())
        for name in HASHED:
            whole.update(digests[name].digest())
        return file, whole.hexdigest()

    def _invalid(self, what: str, hint: str) -> Failed:
        return Failed(Reason.DATASET_INVALID, f"{self._uri} {what}", hint)


def sort_classes(names: list[str]) -> list[str]:
    """By number where all are numbers, else by the alphabet."""
    if all(name.isascii() and name.isdecimal() and len(name) < 19 for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)


def _hash_column(digest: Any, column: pa.Array) -> None:
    """Independent of how the rows are cut into chunks."""
    if pa.types.is_large_string(column.type):
        digest.update(pc.binary_length(column).to_numpy(zero_copy_only=False).tobytes())
        digest.update("".join(column.to_pylist()).encode())
        return
    if column.null_count:
        digest.update(pc.is_null(column).to_numpy(zero_copy_only=False).tobytes())
        column = column.fill_null(0)
    digest.update(column.to_numpy(zero_copy_only=False).tobytes())
