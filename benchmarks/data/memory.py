"""Ten million images from their listing to the order of an epoch, in a fresh process: peak memory, and start-up time.

    python -m benchmarks.data.memory --millions 10

The source is synthetic: it lists names, and other processes have packed one byte for each image and made up its hashes
and measures, one image in a hundred a copy. The rest is what a preparation does: listing, samples, the check of the
shards, the search for copies, items, selection, report, sampling. Peaks are the kernel's (VmHWM, begun anew for each
phase): memory of the process itself, and with it the pages of mapped files, which the kernel takes back when it wants.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from training_core.contract.run_dir import RunSpec, write_atomically
from training_core.contract.spec import JobSpec, Sampling
from training_core.data import cache
from training_core.data.formats import read_dataset
from training_core.data.sampler import Columns, Sampler, evaluation_parts
from training_core.data.samples import Unreadable
from training_core.data.sources.source import Entry, Piece
from training_core.vision import build, shards
from training_core.vision.inspection.measures import FIELDS
from training_core.vision.pack import RAW, shard_name
from training_core.vision.packing import Packing
from training_core.vision.prepare import dataset_version
from training_core.vision.selection import selected

RESULTS = Path(__file__).parent / "results" / "memory.md"
CLASSES = 1000
CEILING_BYTES = 1.5e9


class SyntheticSource:
    """`count` files in `CLASSES` folders. Nothing is read of them: their shards are there."""

    uri = "file:///synthetic"

    def __init__(self, count: int) -> None:
        self._count = count

    def entries(self) -> Iterator[Entry]:
        each = self._count // CLASSES
        for number in range(self._count):
            yield Entry(f"train/class-{number // each:05}/image-{number:09}.jpg", 60_000, number)

    def read(self, pieces: Iterable[Piece]) -> Iterator[bytes | Unreadable]:
        raise AssertionError(f"all shards are complete, and nobody needs {pieces}")

    def beside(self) -> None:
        return None

    def identity(self) -> None:
        return None

    def open(self, entry: Entry) -> BinaryIO:
        raise AssertionError(f"nobody needs to open {entry.path}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--millions", type=float, default=10)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--shards", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    count = round(arguments.millions * 10**6)
    if arguments.shards:
        write_shards(arguments.shards, count)
        return
    if arguments.folder:
        measure(arguments.folder, count, arguments.millions)
        return
    with tempfile.TemporaryDirectory() as folder:
        command = ["--millions", str(arguments.millions), "--folder", folder]
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.data.memory", *command], check=True, text=True, stdout=-1
        )
    text = table(json.loads(done.stdout), count)
    print(text)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(text)


def measure(folder: Path, count: int, millions: float) -> None:
    spec = JobSpec.model_validate({"task": "image-classification", "dataset": {"uri": "file:///synthetic"}})
    run = RunSpec(spec=spec, store=f"file://{folder}/store", cache_dir=folder, data_roots=[folder])
    phases: list[dict[str, Any]] = []
    with phase(phases, "listing, samples and their hash"):
        (folder / "listing").mkdir()
        samples, reader = read_dataset(run, SyntheticSource(count), folder / "listing")
        version = dataset_version(samples, run)
    temporary = cache.temporary(folder, version)
    command = ["--millions", str(millions), "--shards", str(temporary)]
    subprocess.run([sys.executable, "-m", "benchmarks.data.memory", *command], check=True)
    with phase(phases, "check of the shards, search for copies, items"):
        build.make(build.Job(run, version, samples, reader, None, lambda: False, threads=2))
    with phase(phases, "selection, splits and report"):
        chosen, files = selected(folder / version, spec.dataset)
    with phase(phases, "selection and report found again"):
        selected(folder / version, spec.dataset)
    with np.load(files.rows, allow_pickle=False) as rows:
        train, validation = rows["train"], rows["validation"]
    for epochs in (1, 1000):
        sampler = Sampler(train, Sampling(), Columns(), seed=0, epochs=epochs)
        with phase(phases, f"start of sampling, {epochs:,} epochs"):
            next(sampler.batches(256, (224, 224)))
    with phase(phases, "first batch of the 900th epoch (a resume)"):
        next(sampler.batches(256, (224, 224), 900 * (len(train) // 256)))
    with phase(phases, "one epoch of batches, and one evaluation"):
        batches = sampler.batches(256, (224, 224))
        seen = sum(len(next(batches).draws) for _ in range(len(train) // 256))
        evaluated = sum(len(part.draws) for part in evaluation_parts(validation, 64, (224, 224)))
    assert evaluated == len(validation) == chosen.images["validation"]
    assert seen > 0.99 * len(train)
    assert "torch" not in sys.modules
    print(json.dumps(phases))


@contextmanager
def phase(phases: list[dict[str, Any]], name: str) -> Iterator[None]:
    Path("/proc/self/clear_refs").write_text("5")
    start, began = time.perf_counter(), own_bytes()
    yield
    seconds = time.perf_counter() - start
    phases.append({"phase": name, "seconds": seconds, "peak": status("VmHWM"), "own": max(began, own_bytes())})
    print(phases[-1], file=sys.stderr)


def own_bytes() -> int:
    return status("RssAnon")


def status(field: str) -> int:
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{field}:")]
    return int(line.split()[1]) * 1024


def write_shards(folder: Path, count: int) -> None:
    """As a preparation would have left them that was killed behind its last shard."""
    folder.mkdir()
    packing = Packing(image_size=224, image_size_reason="synthetic", channels=1, encoding="raw", expected_bytes=count)
    write_atomically(folder / build.PACKING_FILE, packing.model_dump_json().encode())
    random = np.random.default_rng(0)
    for number, first in enumerate(range(0, count, shards.SHARD_SAMPLES)):
        write_shard(folder, number, first, min(count, first + shards.SHARD_SAMPLES), random)


def write_shard(folder: Path, number: int, first: int, last: int, random: np.random.Generator) -> None:
    count = last - first
    known: dict[str, Any] = {
        "sample": np.arange(first, last),
        "width": np.full(count, 500) + random.integers(0, 100, count),
        "height": np.full(count, 375) + random.integers(0, 100, count),
        "channels": np.ones(count),
        "shard": np.full(count, number),
        "start": np.arange(count),
        "length": np.ones(count),
        "stored": np.full(count, RAW),
        "packed_width": np.ones(count),
        "packed_height": np.ones(count),
    }
    same = np.where(random.random(count) < 0.01, random.integers(0, count, count), np.arange(count))
    for field in FIELDS:
        if field.name not in known:
            whole = pa.types.is_integer(field.type)
            values = random.integers(1, 2**64, count, np.uint64) if whole else random.uniform(0.4, 0.8, count)
            known[field.name] = values[same] if whole else values * (10 if field.name == "information" else 1)
    known["width"], known["height"] = known["width"][same], known["height"][same]
    arrays = [pa.array(known[field.name].astype(field.type.to_pandas_dtype())) for field in shards.PART_SCHEMA]
    part = shards.part_file(folder, number)
    with pa.OSFile(str(part), "wb") as sink, pa.ipc.new_file(sink, shards.PART_SCHEMA) as writer:
        writer.write_batch(pa.record_batch(arrays, schema=shards.PART_SCHEMA))
    pixels = folder / shard_name(number)
    pixels.write_bytes(hashlib.sha256(str(number).encode()).digest() * (count // 32 + 1))
    os.truncate(pixels, count)
    seal = shards.Seal(
        first=first,
        next=last,
        images=count,
        bad=[],
        pixels_bytes=count,
        pixels_crc32=shards.checksum(pixels),
        part_bytes=part.stat().st_size,
        part_crc32=shards.checksum(part),
    )
    shards.seal_file(folder, number).write_bytes(seal.model_dump_json().encode())


def table(phases: list[dict[str, Any]], count: int) -> str:
    lines = [
        f"# Memory and start-up with {count:,} images",
        "",
        f"`python -m benchmarks.data.memory --millions {count / 1e6:g}`; {platform.machine()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}. Figure to stay below: {CEILING_BYTES / 1e9:g} GB.",
        "Peak: resident memory, with the pages of mapped files, which the kernel takes back when it needs them.",
        "Own: the memory of the process without them, at the end of the phase.",
        "",
        "| phase | seconds | peak MB | own MB |",
        "|---|---:|---:|---:|",
    ]
    for one in phases:
        lines.append(f"| {one['phase']} | {one['seconds']:.2f} | {one['peak'] / 1e6:,.0f} | {one['own'] / 1e6:,.0f} |")
    peak = max(one["peak"] for one in phases)
    lines += ["", f"Highest peak: {peak / 1e9:.2f} GB, {'below' if peak < CEILING_BYTES else 'above'} the figure."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
