"""A pack gives back what was packed, from any shard, in any encoding."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.data.pictures import image_file, photo
from tests.data.preparing import make_photos, make_run, prepared
from training_core.data.items import Items
from training_core.vision import shards
from training_core.vision.decode import decode_file
from training_core.vision.pack import Pack


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD_SAMPLES", 10)


def originals(pack: Pack, data: Path) -> list[bytes]:
    return [(data / path).read_bytes() for path in Items(pack.folder).paths(range(len(pack)))]


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("channels", [1, 3])
def test_small_images_of_one_size_are_raw_and_gathered(tmp_path: Path, channels: int) -> None:
    data = make_photos(tmp_path / "photos", 24, height=20, width=30, channels=channels)
    pack = Pack(prepared(make_run(tmp_path)).folder)
    assert (pack.encoding, pack.shape, pack.channels, len(pack)) == ("raw", (20, 30), channels, 24)
    assert pack.meta.shards == [10, 10, 4]
    expected = np.stack([decode_file(content, channels) for content in originals(pack, data)])
    rows = np.random.default_rng(0).permutation(24)
    assert (pack.gather(rows) == expected[rows]).all()
    out = np.empty((3, 20, 30, channels), np.uint8)
    assert pack.gather(rows[:3], out) is out
    assert (out == expected[rows[:3]]).all()
    for row in range(24):
        assert (pack.pixels(row) == expected[row]).all()
        assert bytes(pack.encoded(row)) == expected[row].tobytes()


def test_raw_images_of_different_sizes_have_views_of_their_own(tmp_path: Path) -> None:
    data = make_photos(tmp_path / "photos", 6, height=20, width=30)
    (data / "cats" / "zzz.png").write_bytes(image_file(photo(44, 25, seed=99)))
    pack = Pack(prepared(make_run(tmp_path)).folder)
    assert pack.shape is None
    with pytest.raises(ValueError, match="different sizes"):
        pack.gather(np.arange(2))
    shapes = [pack.pixels(row).shape for row in range(len(pack))]
    assert shapes == list(zip(pack.heights, pack.widths, [3] * len(pack), strict=True))
    assert not pack.pixels(0).flags.writeable


def test_jpegs_that_are_small_enough_are_kept_as_they_are(tmp_path: Path) -> None:
    data = make_photos(tmp_path / "photos", 8, "JPEG", height=100, width=120)
    pack = Pack(prepared(make_run(tmp_path, image_size=96, dataset={"packing": "jpeg"})).folder)
    assert pack.encoding == "jpeg"
    assert pack.plain.all()
    assert [bytes(pack.encoded(row)) for row in range(8)] == originals(pack, data)


def test_larger_images_are_shrunk_to_a_little_more_than_the_training_size(tmp_path: Path) -> None:
    make_photos(tmp_path / "photos", 8, "JPEG", height=300, width=400)
    for packing in ("jpeg", "raw"):
        pack = Pack(prepared(make_run(tmp_path, image_size=64, dataset={"packing": packing})).folder)
        assert (set(pack.heights), set(pack.widths)) == ({74}, {99})
        assert pack.pixels(3).shape == (74, 99, 3)
        items = Items(pack.folder)
        assert (set(items.column("height")), set(items.column("width"))) == ({300}, {400})


def test_original_keeps_the_bytes_of_every_file(tmp_path: Path) -> None:
    data = make_photos(tmp_path / "photos", 4, "JPEG", height=300, width=400)
    (data / "cats" / "x.png").write_bytes(image_file(photo(30, 40, seed=50)))
    (data / "cats" / "y.webp").write_bytes(image_file(photo(30, 40, seed=51), "WEBP"))
    pack = Pack(prepared(make_run(tmp_path, image_size=64, dataset={"packing": "original"})).folder)
    contents = originals(pack, data)
    assert [bytes(pack.encoded(row)) for row in range(6)] == contents
    assert pack.encoding == "jpeg"
    assert pack.plain.sum() == 4
    for row, content in enumerate(contents):
        assert (pack.pixels(row) == decode_file(content, 3)).all()
        assert pack.pixels(row).shape == (pack.heights[row], pack.widths[row], 3)


def test_a_grey_pack_in_jpeg(tmp_path: Path) -> None:
    make_photos(tmp_path / "photos", 6, height=200, width=200, channels=1)
    pack = Pack(prepared(make_run(tmp_path, image_size=64, dataset={"packing": "jpeg"})).folder)
    assert pack.channels == 1
    assert pack.pixels(0).shape == (74, 74, 1)


def test_many_threads_read_the_same(tmp_path: Path) -> None:
    make_photos(tmp_path / "photos", 12, "JPEG", height=100, width=120)
    pack = Pack(prepared(make_run(tmp_path, image_size=64, dataset={"packing": "jpeg"})).folder)
    once = [pack.pixels(row) for row in range(12)]
    with ThreadPoolExecutor(8) as pool:
        for row, pixels in enumerate(pool.map(pack.pixels, list(range(12)) * 20)):
            assert (pixels == once[row % 12]).all()
