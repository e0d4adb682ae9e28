"""Makes a prepared dataset: every sample is read, decoded, measured and packed once; then copies are looked for.

It goes on where a try that was cut short ended: whole shards stay in the temporary folder under the version's name.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from training_core.contract.errors import StopRequested
from training_core.contract.run_dir import RunSpec, write_atomically
from training_core.data import cache
from training_core.data.items import ITEMS_FILE, QUARANTINE_FILE
from training_core.data.meta import META_FILE, read_meta
from training_core.data.samples import Content, Reader, Samples
from training_core.vision.convert import Bad, NotGrey, Packed, convert
from training_core.vision.finalize import write_items, write_meta, write_quarantine
from training_core.vision.incremental import Earlier
from training_core.vision.pack import shard_name
from training_core.vision.packing import Packing, choose_packing, probe, probed_rows
from training_core.vision.shards import Seal, ShardWriter, finished

PACKING_FILE = "packing.json"
LOOK_EVERY_SECONDS = 0.1


@dataclass(frozen=True)
class Job:
    """What is made, from what, and where."""

    run: RunSpec
    version: str
    samples: Samples
    reader: Reader
    earlier: Earlier | None
    stop_requested: Callable[[], bool]
    threads: int

    @property
    def folder(self) -> Path:
        return cache.temporary(self.run.cache_dir, self.version)


def make(job: Job) -> Packing:
    """The complete version, published by one rename. Raises `Failed` and `StopRequested`."""
    job.folder.mkdir(exist_ok=True)
    packing = _packing(job)
    if not (job.folder / META_FILE).exists():
        try:
            seals = _pack_all(job, packing)
        except NotGrey:
            packing = packing.model_copy(update={"channels": 3})
            _start_again(job.folder, packing)
            seals = _pack_all(job, packing)
        write_quarantine(job.folder, job.samples, seals)
        columns = write_items(job.folder, job.samples, seals)
        _flush(job.folder)
        write_meta(job.folder, job.version, job.samples, packing=packing, seals=seals, columns=columns)
    _publish(job)
    return packing


def _publish(job: Job) -> None:
    """All is there and safe on the disk; what only the making needed, or a killed try left half-written, goes."""
    shards = range(len(read_meta(job.folder).shards))
    kept = {META_FILE, ITEMS_FILE, QUARANTINE_FILE, *(shard_name(number) for number in shards)}
    for file in job.folder.iterdir():
        if file.name not in kept | {PACKING_FILE}:
            file.unlink()
    # The last: a try that is cut short before it finds all complete, and ends here again.
    (job.folder / PACKING_FILE).unlink()
    _flush(job.folder)
    job.folder.rename(job.run.cache_dir / job.version)
    _flush(job.run.cache_dir, deep=False)


def _packing(job: Job) -> Packing:
    """As the try that was cut short had chosen it, or chosen now; then the disk has room for it."""
    file = job.folder / PACKING_FILE
    try:
        packing = Packing.model_validate_json(file.read_bytes())
    except (FileNotFoundError, ValidationError):
        packing = _choose(job)
        _start_again(job.folder, packing)
    cache.make_room(job.run, packing.expected_bytes, keep=job.version)
    return packing


def _choose(job: Job) -> Packing:
    table = job.samples.table()
    rows = probed_rows(table.num_rows)
    known = {row: job.earlier.facts(row) for row in rows if job.earlier and job.earlier.item_of[row] >= 0}
    facts = known | probe(job.reader, [row for row in rows if row not in known])
    source_bytes = sum(int(np.sum(np.maximum(chunk.to_numpy(), 0))) for chunk in table.column("size").chunks)
    before = job.earlier.packing.encoding if job.earlier else None
    probed = [facts[row] for row in sorted(facts)]
    return choose_packing(job.run.spec, table.num_rows, source_bytes, probed, before)


def _start_again(folder: Path, packing: Packing) -> None:
    shutil.rmtree(folder)
    folder.mkdir()
    write_atomically(folder / PACKING_FILE, packing.model_dump_json().encode())


def _pack_all(job: Job, packing: Packing) -> list[Seal]:
    seals = finished(job.folder)
    count = job.samples.table().num_rows
    first = seals[-1].next if seals else 0
    results = _results(job, packing, range(first, count))
    writer, looked = None, 0.0
    try:
        for one in results:
            more = len(memoryview(one.payload).cast("B")) if isinstance(one, Packed) else 0
            if writer is not None and writer.is_full(more):
                seals.append(writer.seal())
                writer = None
            if writer is None:
                writer = ShardWriter(job.folder, len(seals), one.row)
            writer.add(one)
            if (now := time.monotonic()) - looked >= LOOK_EVERY_SECONDS:
                looked = now
                if job.stop_requested():
                    raise StopRequested
        if writer is not None:
            seals.append(writer.seal())
    finally:
        results.close()
        if writer is not None:
            writer.close()
    return seals


def _results(job: Job, packing: Packing, rows: range) -> Generator[Packed | Bad]:
    """One result a row, in order: copied where an earlier version has the image, made from its content otherwise."""
    earlier = job.earlier
    if not rows:
        return
    if earlier is None or not _alike(earlier.packing, packing):
        yield from convert(job.reader.read(rows), packing, job.threads)
        return
    known = earlier.item_of[rows.start :] >= 0
    unread = np.flatnonzero(~known) + rows.start
    fresh = convert(_read(job.reader, unread), packing, job.threads)
    try:
        for row in rows:
            yield earlier.packed(row) if known[row - rows.start] else next(fresh)
    finally:
        fresh.close()


def _read(reader: Reader, rows: NDArray[np.int64]) -> Iterator[tuple[int, Content]]:
    return reader.read(rows.tolist()) if len(rows) else iter(())


def _alike(one: Packing, other: Packing) -> bool:
    fields = ("image_size", "channels", "encoding")
    return all(getattr(one, name) == getattr(other, name) for name in fields)


def _flush(folder: Path, *, deep: bool = True) -> None:
    """The rename must never survive a power cut that its content did not."""
    for file in [*(folder.iterdir() if deep else ()), folder]:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
