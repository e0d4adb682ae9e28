"""Images that grow: which sides, and the same pixels whether a batch is made at once or one by one."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.data.packs import make_pack, pictures, select
from tests.training.plans import make_plan
from training_core.contract.errors import Failed
from training_core.contract.run_dir import RunSpec
from training_core.contract.spec import JobSpec
from training_core.distributed.ranks import Ranks
from training_core.vision.data_loaders import Feed, open_feed
from training_core.vision.dataset_view import Chosen
from training_core.vision.networks import small_cnn
from training_core.vision.resize import resize
from training_core.vision.resizing import side_of
from training_core.vision.transforms import Recipe, Renderer


def sides(image_size: int, epochs: int = 10, **resizing: float) -> list[int]:
    plan = make_plan(image_size=image_size, epochs=epochs, resizing=resizing)
    return [side_of(epoch, plan) for epoch in range(epochs)]


def test_a_few_sides_that_only_grow() -> None:
    assert sides(28, start=0.7, until=0.5) == [20, 20, 24, 24, 28, 28, 28, 28, 28, 28]
    assert sides(224, start=0.5, until=0.7) == [128, 128, 128, 160, 192, 192, 192, 224, 224, 224]
    assert sides(30, start=0.5, until=0.8)[-1] == 30, "the full side need not be a multiple"


def test_without_it_all_epochs_have_the_full_side() -> None:
    plan = make_plan(resizing=None)
    assert {side_of(epoch, plan) for epoch in range(10)} == {28}


@pytest.mark.parametrize("side", [12, 16, 20, 24, 28, 30])
def test_the_small_network_takes_every_side(side: int) -> None:
    assert small_cnn(1, 3)(torch.zeros(2, 1, side, side)).shape == (2, 3)


@pytest.mark.parametrize(
    ("model", "training", "words"),
    [
        ("small_cnn", {"resizing": {}, "sampling": {"buckets": "shape"}}, "buckets"),
        ({"name": "resnet18", "pretrained": True, "trainable": "head"}, {"resizing": {}}, "head"),
    ],
)
def test_what_it_does_not_go_with_is_refused(model: object, training: dict[str, Any], words: str) -> None:
    with pytest.raises(Failed, match=words) as failed:
        make_plan(model=model, **training)
    assert failed.value.reason == "unsupported"


@pytest.fixture
def data(tmp_path: Path) -> Chosen:
    pack = make_pack(tmp_path / "pack", pictures([(28, 28)] * 50, channels=1), shards=2, image_size=28)
    return select(pack, train=range(40), validation=range(40, 50))


def open_growing(data: Chosen, rank: int = 0, world_size: int = 1) -> Feed:
    plan = make_plan(images=40, batch_size=8, epochs=4, augmentation="light", resizing={"start": 0.7, "until": 0.6})
    spec = JobSpec.model_validate({"task": "image-classification", "dataset": {"uri": "file:///nowhere"}})
    run = RunSpec(spec=spec, store="file:///nowhere", cache_dir=Path("/nowhere"))
    return open_feed(data, plan, run, Ranks(rank, world_size, torch.device("cpu")))


def test_epochs_have_their_side_also_from_the_middle_of_one(data: Chosen) -> None:
    feed = open_growing(data)
    whole = [batch.images.clone() for batch in islice(feed.training(0), 20)]
    assert [images.shape[2] for images in whole] == [20] * 5 + [24] * 5 + [28] * 10
    for later, one in zip(islice(feed.training(7), 13), whole[7:], strict=True):
        assert torch.equal(later.images, one)
    assert {batch.images.shape[2:] for batch in feed.evaluation("validation")} == {(28, 28)}
    feed.close()


def test_ranks_share_what_grows(data: Chosen) -> None:
    whole, one, two = open_growing(data), open_growing(data, 0, 2), open_growing(data, 1, 2)
    for all_images, first, second in islice(zip(*(feed.training(3) for feed in (whole, one, two)), strict=True), 5):
        assert torch.equal(all_images.images[0::2], first.images)
        assert torch.equal(all_images.images[1::2], second.images)
    for feed in (whole, one, two):
        feed.close()


@pytest.mark.parametrize("channels", [1, 3])
def test_a_batch_at_once_has_the_pixels_of_one_by_one(tmp_path: Path, channels: int) -> None:
    images = pictures([(28, 28)] * 9, channels=channels)
    renderer = Renderer(make_pack(tmp_path / "pack", images), Recipe(tmp_path / "pack"))
    rows, out = np.array([4, 0, 8, 4]), np.empty((4, 20, 20, channels), np.uint8)
    renderer(rows, 0, out)
    one_by_one = np.stack([resize(images[row], 20, 20) for row in rows])
    assert np.abs(out.astype(int) - one_by_one).max() <= 1, "Pillow's kernel, to the last bit or nearly"
