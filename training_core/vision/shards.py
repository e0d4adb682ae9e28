"""Shards while they are made: pixels, the rows of their images, and a seal that says both are whole.

pixels-00000.bin   packed images, one behind the other
part-00000.arrow   one row an image: PART_SCHEMA
part-00000.json    Seal, written last: without it, or where it does not fit, the shard is made again
"""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, ValidationError

from training_core.contract.run_dir import write_atomically
from training_core.vision.convert import Bad, Packed
from training_core.vision.inspection.measures import FIELDS
from training_core.vision.pack import shard_name

SHARD_BYTES = 256 * 2**20
SHARD_SAMPLES = 16_384
BUFFER_BYTES = 2**20

PLACE_FIELDS = (
    pa.field("sample", pa.int64(), nullable=False),
    pa.field("width", pa.int32(), nullable=False),
    pa.field("height", pa.int32(), nullable=False),
    pa.field("channels", pa.int8(), nullable=False),
    pa.field("shard", pa.int32(), nullable=False),
    pa.field("start", pa.int64(), nullable=False),
    pa.field("length", pa.int64(), nullable=False),
    pa.field("stored", pa.uint8(), nullable=False),
    pa.field("packed_width", pa.int32(), nullable=False),
    pa.field("packed_height", pa.int32(), nullable=False),
)
PART_SCHEMA = pa.schema([*PLACE_FIELDS, *FIELDS])


class Seal(BaseModel):
    """The samples `[first, next)` are in this shard: `images` of them packed, the `bad` ones named."""

    model_config = ConfigDict(frozen=True)

    first: int
    next: int
    images: int
    bad: list[tuple[int, str, str]]
    pixels_bytes: int
    pixels_crc32: int
    part_bytes: int
    part_crc32: int


def part_file(folder: Path, number: int) -> Path:
    return folder / f"part-{number:05d}.arrow"


def seal_file(folder: Path, number: int) -> Path:
    return folder / f"part-{number:05d}.json"


class ShardWriter:
    """One shard; `seal` completes it, anything else leaves it worthless."""

    def __init__(self, folder: Path, number: int, first: int) -> None:
        self._folder, self._number, self._first, self._next = folder, number, first, first
        self._file = (folder / shard_name(number)).open("wb", buffering=0)
        self._buffer = bytearray()
        self._bytes, self._crc = 0, 0
        self._rows: list[tuple[Any, ...]] = []
        self._bad: list[tuple[int, str, str]] = []

    def is_full(self, more: int) -> bool:
        """Whether `more` bytes belong into the next shard."""
        return self._next - self._first >= SHARD_SAMPLES or (self._bytes > 0 and self._bytes + more > SHARD_BYTES)

    def add(self, one: Packed | Bad) -> None:
        self._next = one.row + 1
        if isinstance(one, Bad):
            self._bad.append((one.row, one.finding, one.problem))
            return
        payload = memoryview(one.payload).cast("B")
        place = (self._number, self._bytes, len(payload), one.stored, one.packed_width, one.packed_height)
        self._rows.append((one.row, one.width, one.height, one.channels, *place, *one.measures))
        self._bytes += len(payload)
        self._buffer += payload
        if len(self._buffer) >= BUFFER_BYTES:
            self._flush()

    def _flush(self) -> None:
        self._crc = zlib.crc32(self._buffer, self._crc)
        written = 0
        with memoryview(self._buffer) as view:
            while written < len(view):
                written += self._file.write(view[written:])
        self._buffer.clear()

    def seal(self) -> Seal:
        self._flush()
        self._file.close()
        columns = list(zip(*self._rows, strict=True)) or [()] * len(PART_SCHEMA)
        arrays = [pa.array(values, field.type) for values, field in zip(columns, PART_SCHEMA, strict=True)]
        part = part_file(self._folder, self._number)
        with pa.OSFile(str(part), "wb") as sink, pa.ipc.new_file(sink, PART_SCHEMA) as writer:
            writer.write_batch(pa.record_batch(arrays, schema=PART_SCHEMA))
        seal = Seal(
            first=self._first,
            next=self._next,
            images=len(self._rows),
            bad=self._bad,
            pixels_bytes=self._bytes,
            pixels_crc32=self._crc,
            part_bytes=part.stat().st_size,
            part_crc32=checksum(part),
        )
        write_atomically(seal_file(self._folder, self._number), seal.model_dump_json().encode())
        return seal

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def finished(folder: Path) -> list[Seal]:
    """Seals of the shards that an earlier try completed, in order, up to the first that is not whole."""
    seals: list[Seal] = []
    while (seal := _verified(folder, len(seals))) is not None and seal.first == (seals[-1].next if seals else 0):
        seals.append(seal)
    return seals


def _verified(folder: Path, number: int) -> Seal | None:
    pixels, part = folder / shard_name(number), part_file(folder, number)
    try:
        seal = Seal.model_validate_json(seal_file(folder, number).read_bytes())
        if os.stat(pixels).st_size != seal.pixels_bytes or os.stat(part).st_size != seal.part_bytes:
            return None
    except (FileNotFoundError, ValidationError):
        return None
    whole = checksum(pixels) == seal.pixels_crc32 and checksum(part) == seal.part_crc32
    return seal if whole else None


def checksum(path: Path) -> int:
    crc = 0
    with path.open("rb") as file:
        while block := file.read(BUFFER_BYTES):
            crc = zlib.crc32(block, crc)
    return crc


def read_part(folder: Path, number: int, columns: list[str] | None = None) -> pa.Table:
    """The rows of one shard, in memory of their own; all columns without `columns`."""
    wanted = None if columns is None else [PART_SCHEMA.get_field_index(name) for name in columns]
    with pa.OSFile(str(part_file(folder, number))) as source:
        options = pa.ipc.IpcReadOptions(included_fields=wanted)
        return pa.ipc.open_file(source, options=options).read_all()
