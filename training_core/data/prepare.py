"""Decodes a dataset once into immutable memory-mapped arrays, shared by ranks, trials and jobs.

<cache_dir>/<dataset_version>/images.npy  (images, side, side, channels) uint8
                              labels.npy  (images,) int64
                              splits.npy  (images,) int8, index into layout.SPLITS
                              meta.json   Meta
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from training_core.data.decode import Undecodable, decode, is_grey, open_image
from training_core.data.layout import SPLITS, Layout, read_layout
from training_core.data.sources import Entry, Source, open_source, reading
from training_core.events import DataReady
from training_core.failure import Failed, StopRequested
from training_core.rundir import RunSpec
from training_core.spec import JobSpec
from training_core.wire import Reason

PREPARED_FORMAT = 1
PROBED_IMAGES = 64
SMALL_SIDE = 96
LARGEST_AUTO_SIDE = 224


class Meta(BaseModel):
    """What the arrays hold; `image_size` is the side of the square in pixels."""

    dataset_version: str
    classes: list[str]
    image_size: int
    image_size_reason: str
    channels: int
    given_images: dict[str, int]
    removed: list[dict[str, str]]


def prepare(run: RunSpec, stop_requested: Callable[[], bool]) -> tuple[Path, DataReady]:
    """The folder of the prepared form, made now or found, and the report about it.

    Raises `Failed` with the reason, and `StopRequested`.
    """
    start = time.perf_counter()
    source = open_source(run)
    with reading(source.uri):
        entries = source.entries()
    version = dataset_version(entries, run.spec)
    folder = run.cache_dir / version
    if not (folder / "meta.json").exists():
        run.cache_dir.mkdir(parents=True, exist_ok=True)
        with _locked(run.cache_dir / f"{version}.lock", stop_requested):
            if not (folder / "meta.json").exists():
                _make(run, source, read_layout(entries, source.uri), folder, stop_requested)
    meta = read_meta(folder)
    counts = split_counts(folder, run.spec)
    seconds = round(time.perf_counter() - start, 4)
    report = DataReady(
        dataset_version=version, classes=meta.classes, images=counts, removed=list(meta.removed), seconds=seconds
    )
    return folder, report


def dataset_version(entries: list[Entry], spec: JobSpec) -> str:
    """Hash of the listing and of every setting that the prepared form depends on."""
    settings = {"format": PREPARED_FORMAT, "image_size": spec.training.image_size, "layout": spec.dataset.format}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for entry in entries:
        digest.update(json.dumps([entry.path, entry.size, entry.fingerprint]).encode() + b"\n")
    return digest.hexdigest()[:32]


def read_meta(folder: Path) -> Meta:
    return Meta.model_validate_json((folder / "meta.json").read_bytes())


def split_counts(folder: Path, spec: JobSpec) -> dict[str, int]:
    """Images by split, after the fractions of the spec were taken where the dataset brings no split."""
    from training_core.data.sample import split_indices  # noqa: PLC0415  sample needs the arrays this module makes

    return {name: len(indices) for name, indices in split_indices(folder, spec).items()}


@contextmanager
def _locked(path: Path, stop_requested: Callable[[], bool]) -> Iterator[None]:
    """Holds the lock file; another process that prepares the same data is waited for."""
    with path.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if stop_requested():
                    raise StopRequested from None
                time.sleep(0.05)
        yield


def _make(run: RunSpec, source: Source, layout: Layout, folder: Path, stop_requested: Callable[[], bool]) -> None:
    side, reason, channels = _probe(source, layout, run.spec)
    for leftover in run.cache_dir.glob(f".{folder.name}.*.tmp"):
        shutil.rmtree(leftover, ignore_errors=True)
    temporary = run.cache_dir / f".{folder.name}.{os.getpid()}.tmp"
    temporary.mkdir()
    try:
        try:
            _decode_all(source, layout, _new_array(temporary, len(layout.paths), side, channels), stop_requested)
        except _NotGrey:
            channels = 3
            _decode_all(source, layout, _new_array(temporary, len(layout.paths), side, channels), stop_requested)
        np.save(temporary / "labels.npy", np.asarray(layout.labels, np.int64))
        np.save(temporary / "splits.npy", np.asarray(layout.splits, np.int8))
        meta = Meta(
            dataset_version=folder.name,
            classes=layout.classes,
            image_size=side,
            image_size_reason=reason,
            channels=channels,
            given_images={name: layout.splits.count(index) for index, name in enumerate(SPLITS)},
            removed=layout.ignored[:1000],
        )
        (temporary / "meta.json").write_text(meta.model_dump_json())
        _flush(temporary)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _new_array(folder: Path, images: int, side: int, channels: int) -> NDArray[np.uint8]:
    """Memory-mapped; raises `Failed(no_space)` before anything is decoded."""
    _check_space(folder, images * side * side * channels)
    shape = (images, side, side, channels)
    array: NDArray[np.uint8] = np.lib.format.open_memmap(folder / "images.npy", "w+", np.uint8, shape)
    return array


def _probe(source: Source, layout: Layout, spec: JobSpec) -> tuple[int, str, int]:
    """Side, its reason, and channels, from the headers of images spread over the dataset."""
    chosen = sorted({round(i) for i in np.linspace(0, len(layout.paths) - 1, PROBED_IMAGES)})
    sides, grey = [], True
    with reading(source.uri):
        for _, content in source.read([layout.paths[i] for i in chosen]):
            # The pass over all images names those that are broken.
            with suppress(Undecodable):
                if isinstance(content, bytes):
                    image = open_image(content)
                    sides.append(min(image.size))
                    grey = grey and is_grey(image)
    channels = 1 if grey else 3
    wanted = spec.training.image_size
    if isinstance(wanted, int):
        return wanted, "as requested", channels
    median = max(8, int(np.median(sides))) if sides else 8
    if median <= SMALL_SIDE:
        return median, f"the images' own size ({median} px)", channels
    return min(median, LARGEST_AUTO_SIDE), f"the shorter sides measure {median} px in the median", channels


class _NotGrey(Exception):
    """A later image has colours although the probed ones had none."""


def _decode_all(source: Source, layout: Layout, images: NDArray[np.uint8], stop_requested: Callable[[], bool]) -> None:
    """Fill `images`, `(images, side, side, channels)`, in the order of the layout."""
    _, side, _, channels = images.shape

    def decode_into(index: int, path: str, content: bytes) -> None:
        try:
            if channels == 1 and not is_grey(open_image(content)):
                raise _NotGrey
            images[index] = decode(content, side, channels)
        except Undecodable as problem:
            raise corrupt(path, str(problem)) from problem

    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    together = 256
    with ThreadPoolExecutor(threads) as pool, reading(source.uri):
        for start in range(0, len(layout.paths), together):
            if stop_requested():
                raise StopRequested
            pending = [
                pool.submit(decode_into, start + offset, path, _content(path, content))
                for offset, (path, content) in enumerate(source.read(layout.paths[start : start + together]))
            ]
            for one in pending:
                one.result()


def _content(path: str, content: bytes | Exception) -> bytes:
    if isinstance(content, Exception):
        raise corrupt(path, "its stored content is damaged") from content
    return content


def corrupt(path: str, problem: str) -> Failed:
    return Failed(Reason.IMAGE_CORRUPT, f"{path} cannot be decoded: {problem}", "replace or remove this file")


def _check_space(folder: Path, needed_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed_bytes * 1.05 + 2**20:
        raise Failed(
            Reason.NO_SPACE,
            f"the prepared dataset needs {needed_bytes / 2**20:,.0f} MiB and {free / 2**20:,.0f} MiB are free",
            "free some space on the worker's cache disk, or lower training.image_size",
        )


def _flush(folder: Path) -> None:
    """The rename must never survive a power cut that its content did not."""
    for file in [*folder.iterdir(), folder]:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
