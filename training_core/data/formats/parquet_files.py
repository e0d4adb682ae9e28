"""What a Parquet file takes to read, by its footer and its dictionaries, before anything of it is unpacked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from training_core.data.bombs import LONGEST_CELL, check_rows, check_unpacked
from training_core.data.formats.columns import invalid

CHUNK_ROWS = 16_384


def open_parquet(file: BinaryIO, path: str, dictionaries: Sequence[str] = ()) -> pq.ParquetFile:
    """`dictionaries` are columns that stay as they are stored. Raises `Failed(dataset_invalid)`."""
    try:
        return pq.ParquetFile(
            file, buffer_size=2**20, page_checksum_verification=True, read_dictionary=list(dictionaries)
        )
    except (pa.ArrowInvalid, OSError, ValueError) as problem:
        raise invalid(path, "is not a readable Parquet file", "check that the upload is complete") from problem


def check_footer(table: pq.ParquetFile, path: str, file_bytes: int, wanted: Sequence[str]) -> None:
    """Raises `Failed(dataset_invalid)` where a `wanted` column unpacks to too much, or rows are made up."""
    metadata = table.metadata
    check_rows(path, file_bytes, metadata.num_rows)
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        for index in range(group.num_columns):
            one = group.column(index)
            if one.path_in_schema.partition(".")[0] not in wanted:
                continue
            what = f"the column {one.path_in_schema[:100]!r} in the row group {number} of {path}"
            check_unpacked(what, min(one.total_compressed_size, file_bytes), one.total_uncompressed_size)


def chunk_bytes(table: pq.ParquetFile, group: int, column: str) -> tuple[int, int]:
    """Of a column in a row group: the bytes stored, and those it unpacks to, a dictionary counted once."""
    metadata = table.metadata.row_group(group)
    parts = [metadata.column(index) for index in range(metadata.num_columns)]
    own = [one for one in parts if one.path_in_schema.partition(".")[0] == column]
    return sum(one.total_compressed_size for one in own), sum(one.total_uncompressed_size for one in own)


def text_batches(file: BinaryIO, path: str, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Rows of columns of text and numbers, in slices; a text that is stored once and repeated is held once.

    Raises `Failed(dataset_invalid)` for a column of another type, and for a text too long for a path or a label.
    """
    schema = open_parquet(file, path).schema_arrow
    texts = [name for name in names if _checked_type(schema.field(name).type, name, path)]
    table = open_parquet(file, path, texts)
    for batch in table.iter_batches(CHUNK_ROWS, columns=list(names), use_threads=False):
        for name in names:
            _check_texts(batch.column(name), name, path)
        yield batch


def _checked_type(kind: pa.DataType, name: str, path: str) -> bool:
    """Whether it is text that is not a dictionary already."""
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not (_is_text(plain) or pa.types.is_primitive(plain) or pa.types.is_null(plain)):
        raise invalid(path, f"has the type {str(kind)[:100]} in the column {name!r}", "use numbers or strings there")
    return _is_text(kind)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _check_texts(column: pa.Array, name: str, path: str) -> None:
    values = column.dictionary if pa.types.is_dictionary(column.type) else column
    longest = pc.max(pc.binary_length(values)).as_py() if _is_text(values.type) else None
    if longest is not None and longest > LONGEST_CELL:
        raise invalid(
            path, f"holds a text of {longest:,} bytes in the column {name!r}", f"{LONGEST_CELL:,} are the most"
        )
