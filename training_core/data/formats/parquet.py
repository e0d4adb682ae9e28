"""Parquet with image bytes, as Hugging Face has it: a column of `struct<bytes, path>` or of binary, and a label."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from training_core.contract.errors import Failed, Reason
from training_core.data.bombs import being_read, check_unpacked
from training_core.data.formats.columns import IMAGE_NAMES, Chosen, Interpreter, choose, invalid
from training_core.data.formats.context import Context, Opened
from training_core.data.formats.parquet_files import check_footer, chunk_bytes, open_parquet, text_batches
from training_core.data.formats.reader import entry_rows
from training_core.data.formats.splits import split_in
from training_core.data.formats.writer import Rows, SampleWriter
from training_core.data.listing import fingerprints
from training_core.data.samples import Content, Samples, Unreadable
from training_core.data.sources.source import LARGEST_FILE_BYTES, TOO_LARGE, stamp_of

READ_ROWS = 64
SLICE_BYTES = 64 * 2**20


def image_column(schema: pa.Schema, wanted: str) -> str | None:
    """The column that holds encoded images: the one asked for, or a usual name, or the only one there is."""
    found = [one.name for one in schema if _holds_bytes(one.type) and wanted in {"auto", one.name}]
    usual = [name for name in IMAGE_NAMES if name in found]
    return (usual or found)[0] if usual or len(found) == 1 else None


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _holds_bytes(kind.field("bytes").type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def has_images(context: Context) -> bool:
    """Whether the first Parquet file holds images themselves rather than their paths."""
    for row, path in context.survey.parquet[:1]:
        with context.source.open(context.listing.entry(row)) as file:
            return image_column(open_parquet(file, path).schema_arrow, context.dataset.columns.image) is not None
    return False


def open_parquet_images(context: Context) -> Opened:
    """Raises `Failed(dataset_invalid)` for a file that is broken, and columns that are missing or of wrong types."""
    files = sorted(context.survey.parquet, key=lambda one: one[1])
    if not files:
        raise Failed(
            Reason.DATASET_EMPTY, f"there are no Parquet files at {context.uri}", "name files that end in .parquet"
        )
    writer = context.writer("parquet")
    images: dict[str, str] = {}
    for row, path in files:
        with context.source.open(context.listing.entry(row)) as file:
            table = open_parquet(file, path)
            images[path] = _image_column(table.schema_arrow, path, context)
            one = _File(context, table, file, row, path, images[path])
            try:
                with being_read(path):
                    for rows in one.rows(writer):
                        writer.add(rows)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as problem:
                raise invalid(path, "is damaged", "check that the upload is complete") from problem
    samples = writer.finish()
    return samples, ParquetReader(context, samples, images)


def _image_column(schema: pa.Schema, path: str, context: Context) -> str:
    wanted = context.dataset.columns.image
    column = image_column(schema, wanted)
    if column is None:
        what = "has no column of encoded images" if wanted == "auto" else f"has no column {wanted!r} of encoded images"
        listed = ", ".join(f"{one.name} ({one.type})" for one in schema)[:300]
        raise invalid(path, what, f"set dataset.columns.image to one that holds bytes; there are: {listed}")
    return column


@dataclass(frozen=True)
class _File:
    context: Context
    table: pq.ParquetFile
    file: BinaryIO
    row: int
    path: str
    image: str

    def rows(self, writer: SampleWriter) -> Iterator[Rows]:
        """All columns but the image's."""
        interpreter, entry, first = self._interpreter(), self.context.listing.entry(self.row), 0
        names = interpreter.chosen.names()
        check_footer(self.table, self.path, entry.size, [self.image, *names])
        whole = np.uint64(stamp_of(f"{entry.size} {entry.stamp}"))
        for batch in text_batches(self.file, self.path, names):
            values = interpreter.values({name: batch.column(name).to_pylist() for name in names}, first + 1)
            index = np.arange(first, first + batch.num_rows)
            sizes = np.zeros(len(index), np.int64)
            yield Rows(
                paths=pa.array([f"{self.path}/{number}" for number in index.tolist()], pa.large_string()),
                files=pa.array([self.path] * len(index), pa.large_string()),
                offsets=index,
                sizes=sizes,
                fingerprints=fingerprints(sizes, whole ^ index.astype(np.uint64)),
                labels=writer.numbers(values.names),
                entries=np.full(len(index), self.row, np.int64),
                **values.extra(),
            )
            first += batch.num_rows

    def _interpreter(self) -> Interpreter:
        schema, dataset = self.table.schema_arrow, self.context.dataset
        columns = dataset.columns.model_copy(update={"image": self.image})
        chosen = choose(schema.names, dataset.model_copy(update={"columns": columns}), self.path)
        _check_types(schema, chosen, self.path)
        return Interpreter(self.path, chosen, split_in(self.path), names=_class_names(schema, chosen.label))


def _check_types(schema: pa.Schema, chosen: Chosen, path: str) -> None:
    for name in chosen.names():
        kind = schema.field(name).type
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        plain = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_primitive(kind)
        if not plain:
            raise invalid(
                path, f"has the type {str(kind)[:100]} in the column {name!r}", "use numbers or strings there"
            )


def _class_names(schema: pa.Schema, label: str) -> list[str] | None:
    """Of a ClassLabel, from the metadata that the `datasets` library writes."""
    try:
        described = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        names = described["info"]["features"][label]["names"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else None


class ParquetReader:
    """Rising rows of a file are read in one go; a row group is never in memory as a whole."""

    def __init__(self, context: Context, samples: Samples, images: dict[str, str]) -> None:
        self._context, self._images = context, images
        self._table = samples.table().select(["file", "offset"])
        self._entries = entry_rows(samples.file.parent)

    def read(self, rows: Sequence[int] | NDArray[np.int64]) -> Iterator[tuple[int, Content]]:
        wanted = np.asarray(rows, np.int64)
        start = 0
        while start < len(wanted):
            stop = start + 1
            while (
                stop < len(wanted)
                and self._entries[wanted[stop]] == self._entries[wanted[start]]
                and wanted[stop] > wanted[stop - 1]
            ):
                stop += 1
            yield from zip(wanted[start:stop].tolist(), self._rising(wanted[start:stop]), strict=True)
            start = stop

    def _rising(self, rows: NDArray[np.int64]) -> Iterator[Content]:
        """Rows of one file, each behind the one before."""
        path = self._table.column("file")[int(rows[0])].as_py()
        offsets = self._table.column("offset").take(pa.array(rows)).to_numpy()
        entry = self._context.listing.entry(int(self._entries[rows[0]]))
        done = 0
        with self._context.source.open(entry) as file:
            table = open_parquet(file, path)
            ends = np.cumsum([table.metadata.row_group(i).num_rows for i in range(table.num_row_groups)])
            while done < len(rows):
                group = int(np.searchsorted(ends, offsets[done], side="right"))
                last = int(np.searchsorted(offsets, ends[group]))
                first_row = int(ends[group] - table.metadata.row_group(group).num_rows)
                wanted = (offsets[done:last] - first_row).tolist()
                with being_read(path):
                    yield from self._of_group(table, group, wanted, self._images[path], path)
                done = last

    def _of_group(
        self, table: pq.ParquetFile, group: int, wanted: list[int], column: str, path: str
    ) -> Iterator[Content]:
        answered, given = 0, 0
        stored, unpacked = chunk_bytes(table, group, column)
        # A dictionary is stored once and may stand in every row: no slice may be too large, however large its values.
        rows = max(1, min(READ_ROWS, SLICE_BYTES // max(1, unpacked)))
        try:
            first = 0
            for batch in table.iter_batches(rows, row_groups=[group], columns=[column], use_threads=False):
                images = batch.column(0)
                while answered < len(wanted) and wanted[answered] < first + batch.num_rows:
                    content = _content(images[wanted[answered] - first])
                    answered += 1
                    given += len(content) if isinstance(content, bytes) else 0
                    check_unpacked(f"the row group {group} of {path}", stored, given)
                    yield content
                if answered == len(wanted):
                    return
                first += batch.num_rows
        except (pa.ArrowInvalid, OSError):
            damaged = Unreadable(f"the row group {group} of its file is damaged")
            yield from [damaged] * (len(wanted) - answered)


def _content(scalar: Any) -> Content:
    if isinstance(scalar, pa.StructScalar):
        scalar = scalar["bytes"] if scalar.is_valid else scalar
    if not scalar.is_valid:
        return Unreadable("its row holds no image")
    buffer = scalar.as_buffer()
    return TOO_LARGE if buffer.size > LARGEST_FILE_BYTES else buffer.to_pybytes()
