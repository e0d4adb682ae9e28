"""From a dataset URI to a prepared form on this host, made once and found afterwards, and the report about it."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from training_core.contract.errors import Failed, Reason
from training_core.contract.reports import AnyReport, DataReady, DataReported
from training_core.contract.run_dir import Prepared, RunSpec
from training_core.data import cache
from training_core.data.formats import open_dataset
from training_core.data.items import Items
from training_core.data.meta import Meta, read_meta
from training_core.data.sampler import check_sampling
from training_core.data.samples import Reader, Samples
from training_core.data.sources.source import CHANGED, VANISHED
from training_core.storage.store import open_store
from training_core.vision.build import Job, make
from training_core.vision.incremental import Sources, open_earlier
from training_core.vision.inspection.measures import FIELDS
from training_core.vision.selection import Files, Selected, selected

PREPARED_FORMAT = 3

How = Literal["made", "updated", "found"]


def prepare(run: RunSpec, stop_requested: Callable[[], bool], say: Callable[[AnyReport], object]) -> Prepared:
    """The prepared form, made now or found. Says `DataReported`, and `DataReady` when there is something to train on.

    Raises `Failed` with the reason, and `StopRequested`.
    """
    start = time.perf_counter()
    run.cache_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".listing-", dir=run.cache_dir) as listing:
        samples, reader = open_dataset(run, Path(listing))
        version = dataset_version(samples, run)
        with using(run, version, samples, reader, stop_requested) as (folder, how):
            meta = read_meta(folder)
            chosen, files = selected(folder, run.spec.dataset)
            say(_report(run, meta, chosen, files))
            _judge(run, meta, chosen, folder)
            check_sampling(folder, files.rows, run.spec.training.sampling)
            seconds = round(time.perf_counter() - start, 4)
            say(_ready(meta, chosen, how, seconds))
            return Prepared(folder=folder, selection=files.rows, seconds=seconds)


def dataset_version(samples: Samples, run: RunSpec) -> str:
    """Hash of the data, of every setting that the prepared form depends on, and of who may read it."""
    return hashlib.sha256(json.dumps([samples.digest, _settings(run)], sort_keys=True).encode()).hexdigest()[:32]


def _settings(run: RunSpec) -> dict[str, object]:
    """With the project, where others may not read what it reads: none of them finds what it prepared."""
    settings: dict[str, object] = {
        "format": [PREPARED_FORMAT, *(field.name for field in FIELDS)],
        "image_size": run.spec.training.image_size,
        "packing": run.spec.dataset.packing,
    }
    return settings if run.readers is None else settings | {"readers": run.readers}


@contextmanager
def using(
    run: RunSpec, version: str, samples: Samples, reader: Reader, stop_requested: Callable[[], bool]
) -> Iterator[tuple[Path, How]]:
    """The folder of the version, which nobody evicts meanwhile, and how it came about."""
    folder = run.cache_dir / version
    how: How = "found"
    while True:
        if cache.is_complete(folder):
            use = cache.Use(run.cache_dir, version)
            if cache.is_complete(folder):
                break
            use.close()  # evicted between the two looks
        with cache.making(run.cache_dir, version, stop_requested):
            if not cache.is_complete(folder):
                how = _make(run, version, samples, reader, stop_requested)
    try:
        yield folder, how
    finally:
        use.close()


def _make(run: RunSpec, version: str, samples: Samples, reader: Reader, stop_requested: Callable[[], bool]) -> How:
    sources = Sources(run.cache_dir, samples.uri, _settings(run))
    earlier = open_earlier(run.cache_dir, sources, samples)
    job = Job(run, version, samples, reader, earlier, stop_requested, _threads(run))
    with _room_for(job):
        packing = make(job)
    sources.point_to(version, packing)
    return "updated" if earlier is not None and bool((earlier.item_of >= 0).any()) else "made"


@contextmanager
def _room_for(job: Job) -> Iterator[None]:
    """A disk that runs full gets back what was written: nothing half-prepared stays in the way."""
    try:
        yield
    except OSError as problem:
        if problem.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        shutil.rmtree(job.folder, ignore_errors=True)
        raise Failed(
            Reason.NO_SPACE,
            f"the worker's cache disk ran full while {job.samples.uri} was prepared",
            "free space on it, lower the worker's cache budget, or lower training.image_size",
        ) from problem


def _threads(run: RunSpec) -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return run.threads * run.devices or cores


def _report(run: RunSpec, meta: Meta, chosen: Selected, files: Files) -> DataReported:
    """Kept with the job, so that it is there when the prepared form is gone."""
    store, folder = open_store(run), f"jobs/{run.job_id}/data_report"
    store.write(f"{folder}/removed.jsonl", files.removed.read_bytes())
    store.write(f"{folder}/data_report.json", files.report.read_bytes())
    return DataReported(
        dataset_version=meta.dataset_version,
        path=folder,
        images=meta.images + meta.quarantined,
        findings=chosen.findings,
        removed=chosen.removed,
    )


def _judge(run: RunSpec, meta: Meta, chosen: Selected, folder: Path) -> None:
    """Raises `Failed`: `image_corrupt` or `dataset_changed` for too many bad images, another for too few good ones."""
    total, allowed = meta.images + meta.quarantined, run.spec.dataset.cleaning.max_bad_fraction
    if meta.quarantined > allowed * total:
        first = next(Items(folder).quarantined())
        changed = first.problem in {CHANGED.problem, VANISHED.problem}
        raise Failed(
            Reason.DATASET_CHANGED if changed else Reason.IMAGE_CORRUPT,
            f"{first.path} cannot be {'read' if first.finding == 'unreadable' else 'decoded'}: {first.problem}; "
            f"{meta.quarantined} of {total} images cannot be used, and dataset.cleaning.max_bad_fraction allows "
            f"{allowed:.1%}",
            "replace or remove the files that the data report lists, or raise dataset.cleaning.max_bad_fraction",
        )
    if chosen.problem is not None:
        raise Failed(chosen.problem.reason, chosen.problem.message, chosen.problem.hint)


def _ready(meta: Meta, chosen: Selected, how: How, seconds: float) -> DataReady:
    return DataReady(
        dataset_version=meta.dataset_version,
        classes=meta.classes,
        images=chosen.images,
        prepared=how,
        seconds=seconds,
        channels=meta.channels,
        image_size=meta.image_size,
    )
