"""DALI behind the same interface, with its CPU operators. Runs where the extra `bench` is installed."""

from __future__ import annotations

import importlib.util
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.data.packs import make_pack, pictures
from training_core.contract.errors import Failed
from training_core.data.sampler import COPY, Part
from training_core.vision.dali import DaliCrew
from training_core.vision.pack import Pack
from training_core.vision.prefetch import Loader
from training_core.vision.transforms import Recipe
from training_core.vision.worker_pool import ThreadCrew

CPU = torch.device("cpu")
HERE = importlib.util.find_spec("nvidia") is not None and importlib.util.find_spec("nvidia.dali") is not None
needs_dali = pytest.mark.skipif(not HERE, reason="nvidia-dali is not installed (extra `bench`)")


def pack_of(folder: Path, encoding: str = "jpeg", channels: int = 3) -> Pack:
    sizes = [(150 + 7 * (number % 5), 180 + 9 * (number % 4)) for number in range(100)]
    return make_pack(folder / encoding, pictures(sizes, channels), encoding=encoding)


@needs_dali
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("preset", ["none", "light"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_pictures_are_those_of_the_threads_but_for_rounding(tmp_path: Path, channels: int, preset: str) -> None:
    pack = pack_of(tmp_path, channels=channels)
    threads = threading.active_count()
    crews = (
        ThreadCrew(pack, [Recipe(pack.folder, preset, 1)]),
        DaliCrew(pack, [Recipe(pack.folder, preset, 1)], threads=2, device=CPU),
    )
    parts = [
        Part(0, np.arange(100), (112, 112)),
        Part(1, np.arange(50) + COPY, (128, 112)),
        Part(2, np.arange(3), (112, 112)),
    ]
    loaders = [Loader(crew, iter(parts), np.arange(100), channels) for crew in crews]
    for ours, theirs in zip(*loaders, strict=True):
        assert ours.images.shape == theirs.images.shape
        assert (ours.images.int() - theirs.images.int()).abs().float().mean() < 1.5
    for crew in crews:
        crew.close()
    assert threading.active_count() == threads


@needs_dali
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_error_is_raised_where_its_batch_would_have_come(tmp_path: Path) -> None:
    pack = pack_of(tmp_path)
    place, shard = bytes(pack.encoded(70)), pack.folder / "pixels-00000.bin"
    shard.write_bytes(shard.read_bytes().replace(place, bytes(len(place))))
    crew = DaliCrew(Pack(pack.folder), [Recipe(pack.folder)], threads=1, device=CPU)
    loader = Loader(
        crew, iter([Part(0, np.arange(60), (32, 32)), Part(0, np.arange(60, 100), (32, 32))]), np.arange(100), 3
    )
    next(loader)
    with pytest.raises(RuntimeError):
        next(loader)
    crew.close()


def test_raw_images_are_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="nothing to decode") as refused:
        DaliCrew(pack_of(tmp_path, "raw"), [], threads=1, device=CPU)
    assert "dataset.packing" in (refused.value.hint or "")


@pytest.mark.skipif(HERE, reason="nvidia-dali is installed")
def test_without_dali_the_way_out_is_told(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="not installed") as refused:
        DaliCrew(pack_of(tmp_path), [], threads=1, device=CPU)
    assert refused.value.hint
