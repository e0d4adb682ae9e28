"""The loader process: the same batches as threads make, errors that arrive, nothing left behind."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from tests.data.packs import make_pack, pictures
from tests.waiting import eventually
from training_core.contract.errors import Failed
from training_core.data.sampler import Part
from training_core.vision.pack import Pack
from training_core.vision.prefetch import READ_AHEAD, Loader
from training_core.vision.process_pool import ProcessCrew
from training_core.vision.transforms import Recipe
from training_core.vision.worker_pool import Crew, ThreadCrew

SHAPES = [(32, 32), (48, 24), (64, 64), (32, 32)]


@pytest.fixture
def pack(tmp_path: Path) -> Pack:
    sizes = [(60 + 7 * (number % 5), 58 + 9 * (number % 4)) for number in range(60)]
    return make_pack(tmp_path / "pack", pictures(sizes), encoding="jpeg", shards=2)


def recipes(pack: Pack) -> list[Recipe]:
    return [Recipe(pack.folder, "strong", 1), Recipe(pack.folder)]


def parts(count: int) -> Iterator[Part]:
    return (Part(number, (np.arange(20) + 3 * number) % 60, SHAPES[number % 4]) for number in range(count))


def test_a_process_makes_the_batches_that_threads_make(pack: Pack) -> None:
    alone: Crew = ThreadCrew(pack, recipes(pack))
    other: Crew = ProcessCrew(pack, recipes(pack), threads=2)
    try:
        for recipe in (0, 1):
            pairs = zip(
                Loader(alone, parts(40), np.arange(60), 3, recipe=recipe),
                Loader(other, parts(40), np.arange(60), 3, recipe=recipe),
                strict=True,
            )
            for one, two in pairs:
                assert torch.equal(one.images, two.images)
                assert torch.equal(one.labels, two.labels)
    finally:
        alone.close()
        other.close()


def test_shared_memory_is_used_again_and_kept_while_in_use(pack: Pack) -> None:
    crew = ProcessCrew(pack, recipes(pack), threads=2)
    same = (part._replace(shape=(32, 32)) for part in parts(60))
    loader = Loader(crew, same, np.arange(60), 3)
    first = next(loader)
    copy = first.images.clone()
    places = {batch.images.data_ptr() for batch in loader}
    assert torch.equal(first.images, copy)
    assert len(places) == READ_AHEAD + 2
    assert first.images.data_ptr() not in places
    crew.close()


def test_closing_leaves_no_process_thread_or_descriptor(pack: Pack) -> None:
    threads, descriptors = threading.active_count(), _descriptors()
    crew = ProcessCrew(pack, recipes(pack), threads=2)
    loader = Loader(crew, parts(1000), np.arange(60), 3)
    next(loader)
    process = psutil.Process(crew.process_id)
    crew.close()
    assert not process.is_running()
    assert threading.active_count() == threads
    del loader  # its memory is mapped for as long as a batch may be looked at
    assert _descriptors() == descriptors


def _descriptors() -> int:
    return psutil.Process().num_fds()


def test_a_process_that_dies_fails_the_batch_that_is_waited_for(pack: Pack) -> None:
    crew = ProcessCrew(pack, recipes(pack), threads=1)
    loader = Loader(crew, parts(1000), np.arange(60), 3)
    next(loader)
    os.kill(crew.process_id, signal.SIGKILL)
    with pytest.raises(Failed, match="loader process is gone") as failed:
        for _ in loader:
            pass
    assert failed.value.reason == "process_died"
    with pytest.raises(Failed, match="loader process is gone"):
        crew.fill(crew.slot(10**5), next(parts(1)), 0).result(10)
    crew.close()


def test_an_error_of_the_process_is_raised_here(pack: Pack) -> None:
    place = bytes(pack.encoded(25))
    shards = [pack.folder / f"pixels-0000{number}.bin" for number in range(2)]
    for shard in shards:
        shard.write_bytes(shard.read_bytes().replace(place, bytes(len(place))))
    crew = ProcessCrew(pack, recipes(pack), threads=1)
    loader = Loader(crew, parts(10), np.arange(60), 3)
    next(loader)
    with pytest.raises(ValueError, match="JPEG"):
        for _ in loader:
            pass
    crew.close()


def test_the_process_does_not_outlive_its_parent(pack: Pack, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        crew = ProcessCrew(pack, recipes(pack), threads=1)
        next(Loader(crew, parts(10), np.arange(60), 3))
        os.write(writing, str(crew.process_id).encode())
        signal.pause()
    os.close(writing)
    process = psutil.Process(int(os.read(reading, 20)))
    os.close(reading)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    eventually(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE, 10)
