"""WebDataset: tar shards in which the files of one sample follow each other under one name (`0001.jpg`, `0001.cls`)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from training_core.contract.errors import Failed, Reason
from training_core.data.archive_index import kept
from training_core.data.bombs import being_read, check_cell
from training_core.data.formats.columns import Interpreter, choose, find_label, invalid
from training_core.data.formats.context import Context, Opened
from training_core.data.formats.reader import FileReader
from training_core.data.formats.splits import split_in
from training_core.data.formats.writer import Rows, SampleWriter
from training_core.data.listing import CHUNK_ROWS
from training_core.data.samples import IMAGE_SUFFIXES
from training_core.data.sources import Entry
from training_core.data.sources.errors import reading
from training_core.data.sources.places import check_name
from training_core.data.sources.source import stamp_of
from training_core.data.sources.tar_members import BadTar, TarMember, tar_members

INDEX_FORMAT = 1
LARGEST_LABEL_BYTES = 2**20
LABEL_FILES = ("cls", "label", "txt")
SHARD_SCHEMA = pa.schema(
    [
        pa.field("key", pa.large_string()),
        pa.field("offset", pa.int64()),
        pa.field("size", pa.int64()),
        pa.field("changed", pa.uint64()),
        pa.field("label", pa.string()),
        pa.field("split", pa.int8()),
        pa.field("weight", pa.float32()),
        pa.field("difficulty", pa.float32()),
        pa.field("group", pa.int64()),
    ]
)


def open_webdataset(context: Context) -> Opened:
    """Raises `Failed(dataset_invalid)` for a shard that is broken and for a sample without a class."""
    shards = sorted(context.survey.tars, key=lambda one: one[1])
    if not shards:
        raise Failed(Reason.DATASET_EMPTY, f"there are no tar shards at {context.uri}", "name files that end in .tar")
    writer = context.writer("webdataset")
    for row, path in shards:
        index = kept(context.run.cache_dir, _identity(context, row), partial(_index, context, row))
        with pa.memory_map(str(index)) as source:
            reader = pa.ipc.open_file(source)
            for number in range(reader.num_record_batches):
                writer.add(_rows(writer, path, context.listing.entry(row), row, reader.get_batch(number)))
    samples = writer.finish()
    return samples, FileReader(context.source, context.listing, samples)


def _identity(context: Context, row: int) -> str:
    dataset, entry = context.dataset, context.listing.entry(row)
    settings = [dataset.columns.model_dump(), dataset.split.group_by, context.run.readers]
    return json.dumps(["webdataset", INDEX_FORMAT, context.uri, entry, settings])


def _rows(writer: SampleWriter, path: str, shard: Entry, row: int, batch: pa.RecordBatch) -> Rows:
    count, sizes = batch.num_rows, batch.column("size").to_numpy()
    # A tar has no checksums: whatever is in a shard changes with the whole of it.
    stamp = np.uint64(stamp_of(f"{shard.size} {shard.stamp}"))
    splits = batch.column("split").to_numpy()
    return Rows(
        paths=pa.array([f"{path}/{key}" for key in batch.column("key").to_pylist()], pa.large_string()),
        files=pa.array([path] * count, pa.large_string()),
        offsets=batch.column("offset").to_numpy(),
        sizes=sizes,
        fingerprints=stamp ^ batch.column("changed").to_numpy(),
        labels=writer.numbers(batch.column("label")),
        splits=np.where(splits < 0, split_in(path), splits).astype(np.int8),
        entries=np.full(count, row, np.int64),
        weights=batch.column("weight"),
        difficulties=batch.column("difficulty"),
        groups=batch.column("group"),
    )


@dataclass
class _Sample:
    key: str
    image: TarMember | None = None
    fields: dict[str, Any] = field(default_factory=dict)


def _index(context: Context, row: int, target: Path) -> None:
    entry = context.listing.entry(row)
    with (
        reading(f"{entry.path} of {context.uri}"),
        being_read(entry.path),
        context.source.open(entry) as file,
        pa.OSFile(str(target), "wb") as sink,
        pa.ipc.new_file(sink, SHARD_SCHEMA) as out,
    ):
        describe = _Describer(context, entry.path)
        try:
            chunk: list[tuple[Any, ...]] = []
            for sample in _samples(file, entry, context.dataset.columns.image):
                chunk.append(describe(sample))
                if len(chunk) == CHUNK_ROWS:
                    out.write_batch(_batch(chunk))
                    chunk = []
            if chunk:
                out.write_batch(_batch(chunk))
        except BadTar as problem:
            raise invalid(
                entry.path, f"is not a readable tar archive: {problem}", "check that the upload is complete"
            ) from problem


def _batch(chunk: list[tuple[Any, ...]]) -> pa.RecordBatch:
    columns = zip(*chunk, strict=True)
    arrays = [pa.array(column, one.type) for column, one in zip(columns, SHARD_SCHEMA, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=SHARD_SCHEMA)


def _samples(file: BinaryIO, entry: Entry, wanted: str) -> Iterator[_Sample]:
    """Files of one sample stand together; a name ends at the first dot behind its last slash."""
    sample: _Sample | None = None
    for member in tar_members(file, entry.size):
        name = check_name(member.name.removeprefix("./"), entry.path)
        folder, slash, base = name.rpartition("/")
        stem, _, suffix = base.partition(".")
        key, suffix = f"{folder}{slash}{stem}", suffix.lower()
        if not stem:
            continue
        if sample is None or key != sample.key:
            if sample is not None and sample.image is not None:
                yield sample
            sample = _Sample(key)
        _take(file, member, suffix, sample, wanted)
    if sample is not None and sample.image is not None:
        yield sample


def _take(file: BinaryIO, member: TarMember, suffix: str, sample: _Sample, wanted: str) -> None:
    if suffix == wanted or (wanted == "auto" and f".{suffix}" in IMAGE_SUFFIXES):
        sample.image = sample.image or member
    elif suffix in {*LABEL_FILES, "json"} and member.size <= LARGEST_LABEL_BYTES:
        file.seek(member.offset)
        content = file.read(member.size).decode("utf-8", "replace").strip()
        if suffix != "json":
            sample.fields.setdefault("cls", content)
            return
        try:
            fields = json.loads(content)
        except (ValueError, RecursionError):
            fields = None
        if isinstance(fields, dict):
            sample.fields |= fields


class _Describer:
    """Turns a sample into a row of the index."""

    def __init__(self, context: Context, shard: str) -> None:
        self._context, self._shard = context, shard
        self._interpreters: dict[tuple[str, ...], Interpreter] = {}

    def __call__(self, sample: _Sample) -> tuple[Any, ...]:
        where = f"the sample {sample.key[:200]!r} of {self._shard}"
        image = sample.image
        if image is None:
            raise AssertionError("samples without an image are left out before")
        dataset, names = self._context.dataset, list(sample.fields)
        if dataset.columns.label == "auto" and find_label(names, dataset) is None:
            raise invalid(where, "has no class", "store it as .cls, or as `label` in .json")
        chosen = choose(["image", *(name for name in names if name != "image")], _with_image(dataset), where)
        for name in chosen.names():
            check_cell(where, name, sample.fields[name])
        values = Interpreter(where, chosen, unit="sample").values({n: [sample.fields[n]] for n in chosen.names()}, 1)
        return (
            f"{sample.key}.{image.name.rpartition('.')[2]}",
            image.offset,
            image.size,
            stamp_of(f"{image.offset} {image.changed}"),
            values.names[0].as_py(),
            int(values.splits[0]),
            *(
                column[0].as_py() if column is not None else None
                for column in (values.weights, values.difficulties, values.groups)
            ),
        )


def _with_image(dataset: Any) -> Any:
    return dataset.model_copy(update={"columns": dataset.columns.model_copy(update={"image": "image"})})
