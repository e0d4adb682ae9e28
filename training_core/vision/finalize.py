"""What completes a preparation: the items with their groups of copies, the quarantine, and last the meta file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from training_core.contract.run_dir import write_atomically
from training_core.data.inspection import duplicates
from training_core.data.items import ITEMS_FILE, QUARANTINE_FILE, Quarantined
from training_core.data.meta import META_FILE, Meta
from training_core.data.samples import SAMPLES_SCHEMA, Samples
from training_core.vision.packing import Packing
from training_core.vision.shards import PART_SCHEMA, Seal, read_part


class Measured(Mapping[str, NDArray[Any]]):
    """Columns of all parts together, read when someone looks: no part stays mapped."""

    def __init__(self, folder: Path, seals: list[Seal]) -> None:
        self._folder, self._images = folder, [seal.images for seal in seals]

    def __getitem__(self, name: str) -> NDArray[Any]:
        values = np.empty(sum(self._images), PART_SCHEMA.field(name).type.to_pandas_dtype())
        start = 0
        for number, images in enumerate(self._images):
            # Copied one by one: a column keeps all that was read with it.
            values[start : start + images] = read_part(self._folder, number, [name]).column(0).to_numpy()
            start += images
        return values

    def __iter__(self) -> Iterator[str]:
        return iter(PART_SCHEMA.names)

    def __len__(self) -> int:
        return len(PART_SCHEMA.names)


def write_items(folder: Path, samples: Samples, seals: list[Seal]) -> Measured:
    """The rows of samples and parts side by side, with their groups of copies."""
    measured = Measured(folder, seals)
    groups = duplicates.group(measured)
    shown = [name for name in SAMPLES_SCHEMA.names if name not in {"file", "offset"}]
    written = [name for name in PART_SCHEMA.names if name != "sample"]
    schema = pa.schema(
        [
            *(SAMPLES_SCHEMA.field(name) for name in shown),
            *(PART_SCHEMA.field(name) for name in written),
            pa.field("exact_group", pa.int32(), nullable=False),
            pa.field("near_group", pa.int32(), nullable=False),
        ]
    )
    done = 0
    with pa.OSFile(str(folder / ITEMS_FILE), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for number, seal in enumerate(seals):
            part = read_part(folder, number)
            # Opened anew, so that the pages of what was read do not stay mapped.
            chosen = samples.table().slice(seal.first, seal.next - seal.first).select(shown)
            chosen = chosen.take(pa.array(part.column("sample").to_numpy() - seal.first))
            columns = [*chosen.columns, *(part.column(name) for name in written)]
            for group in (groups.exact, groups.near):
                columns.append(pa.chunked_array([pa.array(group[done : done + seal.images], pa.int32())]))
            writer.write_table(pa.table(columns, schema=schema))
            done += seal.images
    return measured


def write_quarantine(folder: Path, samples: Samples, seals: list[Seal]) -> None:
    table = samples.table()
    with (folder / QUARANTINE_FILE).open("wb") as file:
        for seal in seals:
            for row, finding, problem in seal.bad:
                path, label, split = (table.column(name)[row].as_py() for name in ("path", "label", "split"))
                line = Quarantined(path=path, label=label, split=split, finding=finding, problem=problem)
                file.write(line.model_dump_json().encode() + b"\n")


def write_meta(
    folder: Path, version: str, samples: Samples, *, packing: Packing, seals: list[Seal], columns: Measured
) -> None:
    uniform = None
    if packing.encoding == "raw" and any(seal.images for seal in seals):
        sizes = np.unique(np.stack([columns["packed_height"], columns["packed_width"]], 1), axis=0)
        uniform = sizes[0].tolist() if len(sizes) == 1 else None
    meta = Meta(
        dataset_version=version,
        source=samples.uri,
        format=samples.format,
        classes=samples.classes,
        image_size=packing.image_size,
        image_size_reason=packing.image_size_reason,
        channels=packing.channels,
        encoding=packing.encoding,
        height=uniform[0] if uniform else None,
        width=uniform[1] if uniform else None,
        images=sum(seal.images for seal in seals),
        quarantined=sum(len(seal.bad) for seal in seals),
        shards=[seal.images for seal in seals],
        bytes=sum(seal.pixels_bytes for seal in seals) + (folder / ITEMS_FILE).stat().st_size,
        ignored=samples.ignored,
        ignored_count=samples.ignored_count,
    )
    write_atomically(folder / META_FILE, meta.model_dump_json().encode())
