"""Reads manifests as chunks of columns, in bounded memory whatever the file holds: CSV, JSON lines, Parquet."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from training_core.data.formats.columns import invalid

CHUNK_ROWS = 16_384
LONGEST_LINE = 2**20
HEADER_ROWS = 100
Columns = dict[str, Sequence[Any]]


def header(file: BinaryIO, path: str) -> list[str]:
    """Names of the columns. Raises `Failed(dataset_invalid)`."""
    if path.lower().endswith(".parquet"):
        return [str(name) for name in open_parquet(file, path).schema_arrow.names]
    if is_csv(path):
        return next(_csv_rows(file, path), [])
    names: dict[str, None] = {}
    for number, (_, record) in enumerate(_records(file, path)):
        names |= dict.fromkeys(record)
        if number == HEADER_ROWS or len(names) > LONGEST_LINE:
            break
    return list(names)


def chunks(file: BinaryIO, path: str, wanted: Sequence[str]) -> Iterator[tuple[int, Columns]]:
    """The number of the first row (counted from 1 as a person would) and the columns of each chunk."""
    if path.lower().endswith(".parquet"):
        yield from _parquet_chunks(file, path, wanted)
    elif is_csv(path):
        yield from _csv_chunks(file, path, wanted)
    else:
        yield from _json_chunks(file, path, wanted)


def is_csv(path: str) -> bool:
    return path.lower().endswith((".csv", ".tsv"))


def open_parquet(file: BinaryIO, path: str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file, buffer_size=2**20, page_checksum_verification=True)
    except (pa.ArrowInvalid, OSError, ValueError) as problem:
        raise invalid(path, "is not a readable Parquet file", "check that the upload is complete") from problem


def _csv_rows(file: BinaryIO, path: str) -> Iterator[list[str]]:
    delimiter = "\t" if path.lower().endswith(".tsv") else _delimiter(file)
    reader = csv.reader(_lines(file, path), delimiter=delimiter, strict=True)
    try:
        yield from reader
    except csv.Error as problem:
        raise invalid(
            f"line {reader.line_num} of {path}", f"is not CSV: {problem}", "check the quotes around it"
        ) from problem


def _delimiter(file: BinaryIO) -> str:
    first = file.readline(LONGEST_LINE)
    file.seek(0)
    return max(",;\t", key=lambda mark: first.count(mark.encode()))


def _lines(file: BinaryIO, path: str) -> Iterator[str]:
    """Text without a byte order mark. Raises `Failed(dataset_invalid)` naming the line."""
    number = 0
    while raw := file.readline(LONGEST_LINE + 1):
        number += 1
        where = f"line {number} of {path}"
        if len(raw) > LONGEST_LINE:
            raise invalid(where, "is longer than a mebibyte", "check that the file is what its name says")
        if b"\0" in raw:
            raise invalid(where, "holds a NUL byte", "save the file as UTF-8 text")
        try:
            yield raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as problem:
            raise invalid(where, "is not UTF-8", "save the file as UTF-8 text") from problem


def _csv_chunks(file: BinaryIO, path: str, wanted: Sequence[str]) -> Iterator[tuple[int, Columns]]:
    rows = _csv_rows(file, path)
    names = next(rows, [])
    positions = [names.index(name) for name in wanted]
    first, number, columns = 2, 1, [list[str]() for _ in wanted]
    for row in rows:
        number += 1
        if not row:
            if not columns[0]:
                first = number + 1
                continue
            yield first, dict(zip(wanted, columns, strict=True))
            first, columns = number + 1, [[] for _ in wanted]
            continue
        if len(row) != len(names):
            what = f"has {len(row)} cells, and the header {len(names)}"
            raise invalid(f"row {number} of {path}", what, "quote cells that hold the delimiter")
        for column, position in zip(columns, positions, strict=True):
            column.append(row[position])
        if len(columns[0]) == CHUNK_ROWS:
            yield first, dict(zip(wanted, columns, strict=True))
            first, columns = number + 1, [[] for _ in wanted]
    if columns[0]:
        yield first, dict(zip(wanted, columns, strict=True))


def _records(file: BinaryIO, path: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(_lines(file, path), start=1):
        if line.isspace():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as problem:
            raise invalid(f"line {number} of {path}", "is not JSON", "write one JSON object a line") from problem
        if not isinstance(record, dict):
            raise invalid(f"line {number} of {path}", "is not a JSON object", "write one JSON object a line")
        yield number, record


def _json_chunks(file: BinaryIO, path: str, wanted: Sequence[str]) -> Iterator[tuple[int, Columns]]:
    first, columns = 1, [list[Any]() for _ in wanted]
    for number, record in _records(file, path):
        if columns[0] and number != first + len(columns[0]):  # an empty line in between: rows are counted anew
            yield first, dict(zip(wanted, columns, strict=True))
            columns = [[] for _ in wanted]
        first = first if columns[0] else number
        for column, name in zip(columns, wanted, strict=True):
            column.append(record.get(name))
        if len(columns[0]) == CHUNK_ROWS:
            yield first, dict(zip(wanted, columns, strict=True))
            columns = [[] for _ in wanted]
    if columns[0]:
        yield first, dict(zip(wanted, columns, strict=True))


def _parquet_chunks(file: BinaryIO, path: str, wanted: Sequence[str]) -> Iterator[tuple[int, Columns]]:
    first = 1
    try:
        for batch in open_parquet(file, path).iter_batches(CHUNK_ROWS, columns=list(wanted), use_threads=False):
            yield first, {name: batch.column(name).to_pylist() for name in wanted}
            first += batch.num_rows
    except (pa.ArrowInvalid, OSError) as problem:
        raise invalid(path, "is damaged", "check that the upload is complete") from problem
