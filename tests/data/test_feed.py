"""What the training loop is given: the same batches for any number of ranks, and who makes them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.data.packs import make_pack, pictures, select
from training_core.contract.run_dir import RunSpec
from training_core.contract.spec import JobSpec
from training_core.distributed.ranks import Ranks
from training_core.planner.plan import Plan, choose_plan
from training_core.planner.recipe import DataFacts
from training_core.vision.data_loaders import Feed, make_crew, measure, open_feed
from training_core.vision.dataset_view import Chosen
from training_core.vision.process_pool import ProcessCrew
from training_core.vision.transforms import Recipe
from training_core.vision.worker_pool import ThreadCrew

CPU = torch.device("cpu")


@pytest.fixture
def data(tmp_path: Path) -> Chosen:
    sizes = [(100 + 40 * (number % 3), 100 + 40 * (number // 3 % 3)) for number in range(50)]
    pack = make_pack(tmp_path / "pack", pictures(sizes), encoding="jpeg", image_size=112, label=np.arange(50) % 3)
    return select(pack, train=range(37), validation=range(37, 50))


def plan_of(data: Chosen, **training: Any) -> tuple[Plan, RunSpec]:
    dataset = {"uri": "file://nowhere"}
    spec = JobSpec.model_validate({"task": "image-classification", "dataset": dataset, "training": training})
    facts = DataFacts(len(data.splits["train"]), 3, 3, 112, "as requested")
    plan = choose_plan(spec, facts, device="cpu")
    return plan, RunSpec(spec=spec, store="file://nowhere", cache_dir=data.pack.folder.parent)


def feed_of(data: Chosen, rank: int = 0, world_size: int = 1, **training: Any) -> Feed:
    plan, run = plan_of(data, **{"batch_size": 7, "augmentation": "strong", **training})
    return open_feed(data, plan, run, Ranks(rank, world_size, CPU))


def copies(batches: Iterator[Any], count: int) -> list[tuple[torch.Tensor, torch.Tensor, int]]:
    return [(one.images.clone(), one.labels, one.epoch) for one in islice(batches, count)]


SAMPLINGS: list[dict[str, Any]] = [{}, {"balance": "classes"}, {"buckets": "shape"}]


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_share_the_batches_of_one(data: Chosen, world_size: int, sampling: dict[str, Any]) -> None:
    whole = feed_of(data, sampling=sampling)
    expected = copies(whole.training(3), 8)
    ranks = [feed_of(data, rank, world_size, sampling=sampling) for rank in range(world_size)]
    for rank, feed in enumerate(ranks):
        for mine, one in zip(copies(feed.training(3), 8), expected, strict=True):
            assert torch.equal(mine[0], one[0][rank::world_size])
            assert torch.equal(mine[1], one[1][rank::world_size])
            assert mine[2] == one[2]
        feed.close()
    whole.close()


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_training_goes_on_where_it_was(data: Chosen, sampling: dict[str, Any]) -> None:
    feed = feed_of(data, sampling=sampling)
    whole = copies(feed.training(0), 12)
    for step in (1, 5, 7):
        for later, one in zip(copies(feed.training(step), 12 - step), whole[step:], strict=True):
            assert torch.equal(later[0], one[0])
            assert torch.equal(later[1], one[1])
    feed.close()


def test_batches_by_shape_have_several_shapes(data: Chosen) -> None:
    feed = feed_of(data, sampling={"buckets": "shape"}, batch_size=5)
    shapes = {tuple(images.shape[2:]) for images, _, _ in copies(feed.training(0), 21)}
    assert len(shapes) > 1
    assert {tuple(batch.images.shape[2:]) for batch in feed.evaluation("validation")} == {(112, 112)}
    feed.close()


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_evaluation_gives_every_image_once(data: Chosen, world_size: int) -> None:
    seen = []
    for rank in range(world_size):
        feed = feed_of(data, rank, world_size)
        assert feed.images("validation") == 13
        seen += [image.numpy().tobytes() for batch in feed.evaluation("validation") for image in batch.images]
        feed.close()
    assert len(seen) == len(set(seen)) == 13


def test_an_evaluation_in_the_middle_disturbs_nothing(data: Chosen) -> None:
    feed = feed_of(data)
    expected = copies(feed.training(0), 10)
    batches = feed.training(0)
    for number, (images, labels, _) in enumerate(expected):
        batch = next(batches)
        if number % 3 == 0:
            assert sum(len(one.images) for one in feed.evaluation("validation")) == 13
        assert torch.equal(batch.images, images)
        assert torch.equal(batch.labels, labels)
    feed.close()


def test_closing_in_the_middle_leaves_no_thread(data: Chosen) -> None:
    before = threading.active_count()
    feed = feed_of(data)
    next(feed.training(0))
    next(feed.evaluation("validation"))
    feed.close()
    assert threading.active_count() == before


def test_statistics_are_those_of_the_pictures(data: Chosen) -> None:
    statistics = measure(data.pack, data.splits["train"], 112)
    feed = feed_of(data)
    data.splits["all"] = data.splits["train"]
    pixels = torch.cat([batch.images.clone() for batch in feed.evaluation("all")]).double()
    assert statistics.mean == pytest.approx(pixels.mean(dim=(0, 2, 3)).tolist(), rel=1e-6)
    assert statistics.deviation == pytest.approx(pixels.std(dim=(0, 2, 3), correction=0).tolist(), rel=1e-6)
    feed.close()


def test_on_a_cpu_one_thread_begins_and_a_process_comes_when_asked_for(data: Chosen) -> None:
    recipes, ranks = [Recipe(data.pack.folder)], Ranks(0, 1, CPU)
    threads = make_crew(data.pack, recipes, ranks)
    assert isinstance(threads, ThreadCrew)
    assert threads.threads == 1
    threads.close()
    process = make_crew(data.pack, recipes, ranks, "process")
    assert isinstance(process, ProcessCrew)
    process.close()


@pytest.mark.parametrize(
    ("images", "channels", "epochs", "preset"),
    [
        (300_000, 3, 100, "light"),
        (10_000, 3, 5, "none"),
        (10_000, 3, 30, "light"),
        (10_000, 3, 100, "standard"),
        (10_000, 1, 100, "light"),
        (60_000, 3, 100, "light"),
    ],
)
def test_the_automatic_preset_follows_the_data(images: int, channels: int, epochs: int, preset: str) -> None:
    dataset = {"uri": "file://nowhere"}
    spec = JobSpec.model_validate({"task": "image-classification", "dataset": dataset, "training": {"epochs": epochs}})
    facts = DataFacts(images, 10, channels, 112, "as requested")
    plan = choose_plan(spec, facts, device="cpu")
    assert plan.augmentation == preset
    assert plan.reasons["training.augmentation.preset"]
