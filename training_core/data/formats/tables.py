"""Reads manifests as chunks of columns, in bounded memory whatever the file holds: CSV, JSON lines, Parquet."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import pyarrow as pa

from training_core.data.bombs import check_cell
from training_core.data.formats.columns import invalid
from training_core.data.formats.parquet_files import CHUNK_ROWS, check_footer, open_parquet, text_batches

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
        for column, position, name in zip(columns, positions, wanted, strict=True):
            check_cell(f"row {number} of {path}", name, row[position])
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
            check_cell(f"line {number} of {path}", name, record.get(name))
            value = record.get(name)
            # A list or an object is refused with its chunk; until then it may not fill the memory.
            column.append([] if isinstance(value, list | dict) else value)
        if len(columns[0]) == CHUNK_ROWS:
            yield first, dict(zip(wanted, columns, strict=True))
            columns = [[] for _ in wanted]
    if columns[0]:
        yield first, dict(zip(wanted, columns, strict=True))


def _parquet_chunks(file: BinaryIO, path: str, wanted: Sequence[str]) -> Iterator[tuple[int, Columns]]:
    first = 1
    try:
        check_footer(open_parquet(file, path), path, file.seek(0, os.SEEK_END), wanted)
        for batch in text_batches(file, path, wanted):
            yield first, {name: batch.column(name).to_pylist() for name in wanted}
            first += batch.num_rows
    except (pa.ArrowInvalid, OSError) as problem:
        raise invalid(path, "is damaged", "check that the upload is complete") from problem
