"""Items as the preparation writes them, made from a few columns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from training_core.data.inspection.duplicates import group
from training_core.data.items import ITEMS_FILE, QUARANTINE_FILE, Items, Quarantined

# None is near another.
HASHES = np.random.default_rng(7).integers(1, 2**64, (5, 4096), np.uint64)
HASH_NAMES = ("phash", "fine_0", "fine_1", "fine_2", "fine_3")

TYPES = {
    "label": np.int32,
    "split": np.int8,
    "group": np.int64,
    "width": np.int32,
    "height": np.int32,
    "packed_width": np.int32,
    "packed_height": np.int32,
}


def make_items(folder: Path, count: int, quarantined: Sequence[Quarantined] = (), **columns: Any) -> Items:
    """`count` images that differ, all in training and of one class, unless a column says otherwise."""
    given = {
        "label": np.zeros(count),
        "split": np.full(count, -1),
        "group": np.full(count, -1),
        "content": np.arange(1, count + 1, dtype=np.uint64),
        "pixels": np.arange(1, count + 1, dtype=np.uint64),
        "brightness": np.full(count, 0.5),
        "highlight": np.full(count, 0.9),
        "shadow": np.full(count, 0.1),
        "information": np.full(count, 7.0),
        "sharpness": np.full(count, 0.6),
    }
    given |= {name: HASHES[number, np.arange(count)] for number, name in enumerate(HASH_NAMES)}
    given |= {name: np.full(count, 300) for name in ("width", "height", "packed_width", "packed_height")}
    given |= {name: np.asarray(values) for name, values in columns.items()}
    arrays = {
        name: values.astype(TYPES.get(name, np.uint64 if values.dtype == np.uint64 else np.float32))
        for name, values in given.items()
    }
    for name in ("content", "pixels", *HASH_NAMES):
        arrays[name] = given[name].astype(np.uint64)
    groups = group(arrays)
    table = {"path": pa.array([f"{row:05}.jpg" for row in range(count)], pa.large_string())}
    table |= {name: pa.array(values) for name, values in arrays.items()}
    table |= {"exact_group": pa.array(groups.exact), "near_group": pa.array(groups.near)}
    table["group"] = pa.array([None if value < 0 else int(value) for value in arrays["group"]], pa.int64())
    folder.mkdir(parents=True, exist_ok=True)
    with pa.ipc.new_file(str(folder / ITEMS_FILE), pa.table(table).schema) as file:
        file.write_table(pa.table(table))
    (folder / QUARANTINE_FILE).write_text("".join(one.model_dump_json() + "\n" for one in quarantined))
    return Items(folder)
