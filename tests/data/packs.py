"""Prepared datasets of given pictures, without the preparation: the form that `pack.py` describes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import simplejpeg
from numpy.typing import NDArray

from training_core.contract.run_dir import Prepared
from training_core.data.items import ITEMS_FILE
from training_core.data.meta import META_FILE, Meta
from training_core.vision.dataset_view import Chosen
from training_core.vision.pack import PLAIN_JPEG, RAW, Pack, shard_name

Images = NDArray[np.uint8]


def pictures(sizes: Sequence[tuple[int, int]], channels: int = 3, seed: int = 0) -> list[Images]:
    """Smooth pictures with noise, `(height, width, channels)` each."""
    random = np.random.default_rng(seed)
    made = []
    for height, width in sizes:
        rows, columns = np.mgrid[0:height, 0:width]
        waves = [
            np.sin(rows * random.uniform(0.02, 0.1) + columns * random.uniform(0.02, 0.1)) for _ in range(channels)
        ]
        made.append(np.clip(np.stack(waves, 2) * 80 + 128 + random.normal(0, 6, (height, width, channels)), 0, 255))
    return [one.astype(np.uint8) for one in made]


def make_pack(
    folder: Path,
    images: Sequence[Images],
    *,
    encoding: str = "raw",
    shards: int = 1,
    image_size: int = 32,
    **columns: Any,
) -> Pack:
    """`columns` may be label, weight, difficulty; labels alternate without."""
    folder.mkdir(parents=True)
    payloads = [one.tobytes() if encoding == "raw" else _jpeg(one) for one in images]
    rows, counts = [], []
    for number, part in enumerate(np.array_split(np.arange(len(images)), shards)):
        start = 0
        with (folder / shard_name(number)).open("wb") as file:
            for row in part:
                file.write(payloads[row])
                rows.append((number, start, len(payloads[row])))
                start += len(payloads[row])
        counts.append(len(part))
    count, sizes = len(images), {one.shape[:2] for one in images}
    places = list(zip(*rows, strict=True))
    table = pa.table(
        {
            "path": [f"{row}.png" for row in range(count)],
            "label": pa.array(columns.get("label", np.arange(count) % 2), pa.int32()),
            "weight": pa.array(columns.get("weight", [None] * count), pa.float32()),
            "difficulty": pa.array(columns.get("difficulty", [None] * count), pa.float32()),
            "shard": pa.array(places[0], pa.int32()),
            "start": pa.array(places[1], pa.int64()),
            "length": pa.array(places[2], pa.int64()),
            "stored": pa.array([RAW if encoding == "raw" else PLAIN_JPEG] * count, pa.uint8()),
            "packed_width": pa.array([one.shape[1] for one in images], pa.int32()),
            "packed_height": pa.array([one.shape[0] for one in images], pa.int32()),
        }
    )
    with pa.OSFile(str(folder / ITEMS_FILE), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    uniform = sizes.pop() if encoding == "raw" and len(sizes) == 1 else (None, None)
    meta = Meta(
        dataset_version=folder.name,
        source="made by a test",
        format="class-folders",
        classes=[f"class-{number}" for number in range(max(table.column("label").to_pylist()) + 1)],
        image_size=image_size,
        image_size_reason="as requested",
        channels=images[0].shape[2],
        encoding="raw" if encoding == "raw" else "jpeg",
        height=uniform[0],
        width=uniform[1],
        images=count,
        quarantined=0,
        shards=counts,
        bytes=sum(map(len, payloads)),
        ignored=[],
        ignored_count=0,
    )
    (folder / META_FILE).write_text(meta.model_dump_json())
    return Pack(folder)


def _jpeg(image: Images) -> bytes:
    grey = image.shape[2] == 1
    encoded: bytes = simplejpeg.encode_jpeg(image, 95, "GRAY" if grey else "RGB", "420")
    return encoded


def select(pack: Pack, **splits: Sequence[int]) -> Chosen:
    """Rows by split; all train without."""
    file = pack.folder / "selection.npz"
    rows = {name: np.asarray(splits.get(name, ()), np.int64) for name in ("train", "validation", "test")}
    if not splits:
        rows["train"] = np.arange(len(pack))
    np.savez(file, **rows)
    return Chosen(Prepared(folder=pack.folder, selection=file))
