"""Loading: the right pictures in the right order, whatever the threads; nothing overwritten, nothing left behind."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.data.packs import make_pack, pictures, select
from training_core.data.sampler import Part
from training_core.vision.pack import Pack
from training_core.vision.prefetch import READ_AHEAD, Batch, Loader, Normalise
from training_core.vision.transforms import Recipe, Renderer, decoding_divisor
from training_core.vision.worker_pool import ThreadCrew

SIZES = [(40 + 7 * (number % 5), 38 + 9 * (number % 4)) for number in range(60)]


@pytest.fixture(params=["uniform", "raw", "jpeg"])
def pack(request: pytest.FixtureRequest, tmp_path: Path) -> Pack:
    sizes = [(32, 32)] * 60 if request.param == "uniform" else SIZES
    return make_pack(
        tmp_path / "pack", pictures(sizes), encoding="jpeg" if request.param == "jpeg" else "raw", shards=3
    )


def parts(count: int, size: int = 12, shape: tuple[int, int] = (32, 32)) -> Iterator[Part]:
    order = np.random.default_rng(0).permutation(60)
    return (Part(number // 5, np.roll(order, -number * size)[:size], shape) for number in range(count))


def load(pack: Pack, count: int = 10, *, threads: int = 1, augmentation: str = "light", **options: Any) -> list[Batch]:
    crew = ThreadCrew(pack, [Recipe(pack.folder, augmentation, 1)], threads=threads)
    try:
        labels = np.arange(60)
        batches = Loader(crew, parts(count, **options), labels, pack.channels)
        return [Batch(one.images.clone(), one.labels, one.epoch) for one in batches]
    finally:
        crew.close()


def test_batches_do_not_depend_on_the_number_of_threads(pack: Pack) -> None:
    one, many = load(pack, threads=1), load(pack, threads=5)
    assert len(one) == len(many) == 10
    for alone, together, part in zip(one, many, parts(10), strict=True):
        assert torch.equal(alone.images, together.images)
        assert alone.labels.tolist() == together.labels.tolist() == part.draws.tolist()
        assert alone.epoch == part.epoch


def test_batches_that_are_fetched_ahead_are_the_same_and_their_memory_is_given_back(pack: Pack) -> None:
    crew = ThreadCrew(pack, [Recipe(pack.folder, "light", 1)])
    try:
        loader = Loader(crew, parts(12), np.arange(60), pack.channels)
        fetched = [next(loader), *loader.fetch(6)]
        assert all(filled.done() for _, _, filled in loader._waiting), "nothing is being made any more"
        images = [one.images.clone() for one in fetched]
        assert len(loader.ring) > READ_AHEAD + 2
        fetched.clear()
        loader.shrink()
        assert len(loader.ring) <= READ_AHEAD + 2
        images += [one.images.clone() for one in loader]
    finally:
        crew.close()
    assert loader.asked.batches == 12
    assert len(images) == 12
    assert all(torch.equal(one, other.images) for one, other in zip(images, load(pack, 12), strict=True))


def test_batches_are_channels_last_and_of_the_size_wanted(pack: Pack) -> None:
    [batch] = load(pack, 1)
    assert batch.images.shape == (12, 3, 32, 32)
    assert batch.images.dtype == torch.uint8
    assert batch.images.is_contiguous(memory_format=torch.channels_last)


def test_evaluation_sees_the_middle_as_pillow_cuts_it(pack: Pack) -> None:
    [batch] = load(pack, 1, augmentation="none")
    for image, row in zip(batch.images, next(parts(1)).draws.tolist(), strict=True):
        whole = pack.pixels(row)
        height, width, _ = whole.shape
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        middle = Image.fromarray(whole[top : top + side, left : left + side])
        expected = np.asarray(middle.resize((32, 32), Image.Resampling.BILINEAR))
        assert np.abs(image.permute(1, 2, 0).numpy().astype(int) - expected).max() <= 2


def test_a_batch_stays_as_it_is_while_anything_refers_to_it(pack: Pack) -> None:
    crew = ThreadCrew(pack, [Recipe(pack.folder, "light", 1)], threads=3)
    loader = Loader(crew, parts(30), np.arange(60), pack.channels)
    kept, copies = [], []
    for batch in loader:
        kept.append(batch.images[3, :, 5:9])
        copies.append(batch.images[3, :, 5:9].clone())
    crew.close()
    assert all(torch.equal(image, copy) for image, copy in zip(kept, copies, strict=True))
    assert len({image.data_ptr() for image in kept}) == 30


def test_memory_is_used_again_when_batches_are_dropped(pack: Pack) -> None:
    crew = ThreadCrew(pack, [Recipe(pack.folder, "light", 1)], threads=2)
    loader = Loader(crew, parts(200), np.arange(60), pack.channels)
    places = set()
    for batch in loader:
        places.add(batch.images.data_ptr())
    crew.close()
    assert len(loader.ring) == len(places) == READ_AHEAD + 2


def test_larger_batches_replace_smaller_memory(pack: Pack) -> None:
    crew = ThreadCrew(pack, [Recipe(pack.folder)], threads=1)
    shapes = [(16, 16), (48, 24), (16, 16), (64, 64)] * 5
    mixed = (Part(0, np.arange(6), shape) for shape in shapes)
    loader = Loader(crew, mixed, np.arange(60), pack.channels)
    assert [tuple(batch.images.shape[2:]) for batch in loader] == shapes
    crew.close()
    assert len(loader.ring) <= READ_AHEAD + 2


@pytest.mark.parametrize("threads", [1, 4])
def test_an_error_of_a_thread_is_raised_where_its_batch_would_have_come(tmp_path: Path, threads: int) -> None:
    pack = make_pack(tmp_path / "pack", pictures(SIZES), encoding="jpeg")
    place, shard = bytes(pack.encoded(17)), pack.folder / "pixels-00000.bin"
    shard.write_bytes(shard.read_bytes().replace(place, bytes(len(place))))
    crew = ThreadCrew(Pack(pack.folder), [Recipe(pack.folder)], threads=threads)
    order = np.arange(60)
    loader = Loader(crew, (Part(0, order[at : at + 10], (32, 32)) for at in range(0, 60, 10)), order, 3)
    next(loader)
    with pytest.raises(ValueError, match="JPEG"):
        next(loader)
    crew.close()


def test_an_early_stop_leaves_no_thread(pack: Pack) -> None:
    before = threading.active_count()
    crew = ThreadCrew(pack, [Recipe(pack.folder, "light", 1)], threads=4)
    loader = Loader(crew, parts(1000), np.arange(60), pack.channels)
    next(loader)
    assert threading.active_count() == before + 4
    crew.close()
    assert threading.active_count() == before


ABANDON = """
import sys
from pathlib import Path
import numpy as np
from training_core.vision.worker_pool import ThreadCrew
from training_core.vision.prefetch import Loader
from training_core.vision.pack import Pack
from training_core.vision.transforms import Recipe
from training_core.data.sampler import Part

pack = Pack(Path(sys.argv[1]))
crew = ThreadCrew(pack, [Recipe(pack.folder, "light", 1)], threads=3)
next(Loader(crew, (Part(0, np.arange(60), (224, 224)) for _ in range(9)), np.arange(60), 3))
"""


def test_a_program_may_end_while_batches_are_made(tmp_path: Path) -> None:
    pack = make_pack(tmp_path / "pack", pictures([(300, 300)] * 60), encoding="jpeg")
    done = subprocess.run([sys.executable, "-c", ABANDON, str(pack.folder)], check=False, timeout=60)
    assert done.returncode == 0


def test_threads_of_the_loader_leave_torch_its_own(pack: Pack) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    crew = ThreadCrew(pack, [Recipe(pack.folder)], threads=2, most_threads=3)
    assert crew.grow()
    seen: list[int] = []
    other = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    other.start()
    other.join()
    assert (torch.get_num_threads(), seen) == (2, [2])
    crew.close()
    torch.set_num_threads(before)


def test_a_crew_grows_while_the_caller_waits_and_no_further_than_allowed(tmp_path: Path) -> None:
    pack = make_pack(tmp_path / "pack", pictures([(300, 300)] * 60), encoding="jpeg")
    crew = ThreadCrew(pack, [Recipe(pack.folder, "strong", 1)], threads=1, most_threads=3)
    for _ in Loader(crew, parts(40, size=4, shape=(224, 224)), np.arange(60), 3):
        pass
    assert crew.threads == 3
    crew.close()


def test_normalised_images_have_mean_nought_and_deviation_one(pack: Pack) -> None:
    crew = ThreadCrew(pack, [Recipe(pack.folder)])
    [batch] = Loader(crew, iter([Part(0, np.arange(60), (32, 32))]), np.arange(60), 3)
    pixels = batch.images.double()
    mean, deviation = pixels.mean(dim=(0, 2, 3)), pixels.std(dim=(0, 2, 3))
    normalise = Normalise(mean.tolist(), deviation.tolist(), torch.device("cpu"))
    images, labels = normalise(batch)
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert images.mean(dim=(0, 2, 3)).abs().max() < 1e-4
    assert images.std(dim=(0, 2, 3)).sub(1).abs().max() < 1e-4
    assert labels.tolist() == list(range(60))
    assert normalise(batch)[0].data_ptr() == images.data_ptr()
    crew.close()


def test_large_jpegs_are_decoded_at_a_fraction_and_look_the_same(tmp_path: Path) -> None:
    rows, columns = np.mgrid[0:1600, 0:1200]
    smooth = np.stack([128 + 100 * np.sin(rows / 90), 128 + 100 * np.cos(columns / 70), (rows + columns) / 14], 2)
    image = smooth.astype(np.uint8)
    pictures_of = {}
    for encoding in ("raw", "jpeg"):
        pack = make_pack(tmp_path / encoding, [image] * 20, encoding=encoding)
        pictures_of[encoding] = np.empty((20, 112, 112, 3), np.uint8)
        Renderer(pack, Recipe(pack.folder, "light", 1))(np.arange(20), 0, pictures_of[encoding])
    assert np.abs(pictures_of["raw"].astype(int) - pictures_of["jpeg"]).mean() < 2.5


@pytest.mark.parametrize(
    ("down", "right", "divisor"), [(0.5, 3, 1), (1.9, 9, 1), (2, 2, 2), (3.99, 5, 2), (5, 4, 4), (40, 30, 8)]
)
def test_decoding_leaves_at_least_the_pixels_that_are_needed(down: float, right: float, divisor: int) -> None:
    assert decoding_divisor(down, right) == divisor


def test_shares_of_ranks_are_the_batches_of_one(pack: Pack) -> None:
    whole = load(pack, 4)
    crew = ThreadCrew(pack, [Recipe(pack.folder, "light", 1)])
    for rank in range(2):
        mine = (part._replace(draws=part.draws[rank::2]) for part in parts(4))
        for batch, other in zip(Loader(crew, mine, np.arange(60), 3), whole, strict=True):
            assert torch.equal(batch.images, other.images[rank::2])
    crew.close()


def test_selected_rows_and_labels(tmp_path: Path) -> None:
    data = select(make_pack(tmp_path / "pack", pictures([(8, 8)] * 6, 1)), train=[0, 3], validation=[5])
    assert data.splits["train"].tolist() == [0, 3]
    assert data.splits["test"].tolist() == []
    assert data.labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert list(islice(data.items.paths([5]), 1)) == ["5.png"]
