"""Orders, shares and batches: exact for any world size, the same again after a resume."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.data.packs import make_pack, pictures, select
from training_core.contract.errors import Failed
from training_core.contract.spec import Sampling
from training_core.data.buckets import Shapes, shapes_near
from training_core.data.sampler import COPY, Columns, Part, Sampler, evaluation_parts, read_columns, share

ROWS = np.arange(10, 110)
LABELS = np.repeat([0, 1, 2], [70, 20, 10])


def sampler(columns: Columns | None = None, *, seed: int = 3, epochs: int = 10, **sampling: Any) -> Sampler:
    return Sampler(ROWS, Sampling(**sampling), columns or Columns(labels=LABELS), seed=seed, epochs=epochs)


def test_an_epoch_is_a_permutation_that_follows_from_seed_and_epoch() -> None:
    order = sampler().order(1)
    assert sorted(order) == list(ROWS)
    assert list(order) == list(sampler().order(1))
    assert list(order) != list(sampler().order(2))
    assert list(order) != list(sampler(seed=4).order(1))


@pytest.mark.parametrize("world_size", [1, 2, 3, 5, 13, 16])
def test_the_shares_of_the_ranks_are_the_batch(world_size: int) -> None:
    batch = sampler().order(0)[:13]
    parts = [share(batch, rank, world_size) for rank in range(world_size)]
    assert sorted(np.concatenate(parts)) == sorted(batch)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("sampling", [{}, {"balance": "classes"}, {"balance": "weights"}, {"pacing": "easy_to_hard"}])
def test_batches_go_on_exactly_where_they_were(sampling: dict[str, Any]) -> None:
    columns = Columns(labels=LABELS, weights=np.linspace(0, 1, 100), difficulty=np.linspace(1, 0, 100))
    whole = list(islice(sampler(columns, **sampling).batches(12, (8, 8)), 40))
    for step in (0, 1, 7, 8, 9, 31):
        later = list(islice(sampler(columns, **sampling).batches(12, (8, 8), step), 40 - step))
        assert [(one.epoch, list(one.draws)) for one in later] == [(one.epoch, list(one.draws)) for one in whole[step:]]
    assert [one.epoch for one in whole] == [step // 8 for step in range(40)]
    assert {len(one.draws) for one in whole} == {12}


def test_classes_are_drawn_equally_often_and_images_of_a_class_too() -> None:
    for epoch in range(3):
        order = sampler(balance="classes").order(epoch)
        rows = order % COPY
        assert len(order) == 100
        assert sorted(np.bincount(LABELS[rows - 10])) == [33, 33, 34]
        for label in range(3):
            times = np.bincount(rows - 10, minlength=100)[label == LABELS]
            assert times.max() - times.min() <= 1
        assert len(np.unique(order)) == 100, "an image drawn twice is two draws"


def test_weights_say_how_often_an_image_comes() -> None:
    weights = np.random.default_rng(0).gamma(1, size=100)
    weights[:30] = 0
    expected = 100 * weights / weights.sum()
    total = np.zeros(100)
    for epoch in range(400):
        order = sampler(Columns(weights=weights), balance="weights").order(epoch)
        times = np.bincount(order % COPY - 10, minlength=100)
        assert (np.abs(times - expected) < 1).all()
        assert len(np.unique(order)) == 100
        total += times
    assert total[:30].sum() == 0
    assert total / 400 == pytest.approx(expected, abs=0.12)


def test_pacing_begins_with_the_easy_and_ends_with_all() -> None:
    difficulty = np.tile(np.linspace(0, 1, 10), 10)
    labels = np.repeat([0, 1], 50)
    paced = sampler(Columns(labels=labels, difficulty=difficulty), pacing="easy_to_hard", pacing_epochs=0.5)
    seen = [np.unique(paced.order(epoch) % COPY - 10) for epoch in range(10)]
    assert [len(paced.order(epoch)) for epoch in range(10)] == [100] * 10
    assert [len(rows) for rows in seen] == sorted(len(rows) for rows in seen)
    assert 20 <= len(seen[0]) < 50
    assert difficulty[seen[0]].max() < 0.5
    assert set(labels[seen[0]]) == {0, 1}
    assert [len(rows) for rows in seen[4:]] == [100] * 6


def shapes_of(aspects: list[float], size: int = 224) -> Shapes:
    heights = np.full(len(aspects), 300)
    return Shapes(heights, np.rint(heights * aspects).astype(np.int32), size)


def test_batches_by_shape_lose_no_image_and_mix_only_neighbours() -> None:
    aspects = np.random.default_rng(1).choice([0.5, 0.75, 1.0, 1.33, 2.0], 110)
    shapes = shapes_of(list(aspects))
    by_shape = sampler(Columns(shapes=shapes), buckets="shape")
    batches = list(islice(by_shape.batches(8, (224, 224)), 12))
    assert {one.epoch for one in batches} == {0}
    assert len(np.unique(np.concatenate([one.draws for one in batches]))) == 96
    kinds = [len(np.unique(shapes.bucket_of(one.draws))) for one in batches]
    assert sum(kind > 1 for kind in kinds) <= len(shapes.shapes) - 1
    for one in batches:
        assert one.shape in {shapes.shape_of(int(row)) for row in one.draws}
    assert len({one.shape for one in batches}) >= 4
    firsts = [one.shape for one in batches]
    assert firsts != sorted(firsts, key=lambda shape: shape[1] / shape[0]), "batches come in a random order"
    assert next(by_shape.batches(8, (224, 224), 12)).epoch == 1


@pytest.mark.parametrize("size", [28, 32, 64, 96, 128, 160, 224, 256, 384])
def test_shapes_have_the_area_of_the_square(size: int) -> None:
    shapes = shapes_near(size)
    assert (size, size) in shapes
    step = 16 if size <= 160 else 32
    for height, width in shapes:
        if height != width:
            assert height % step == width % step == 0
            assert 0.5 <= height * width / size**2 <= 1.5
    ratios = [width / height for height, width in shapes]
    assert ratios == sorted(ratios)


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_evaluation_counts_every_image_once(world_size: int) -> None:
    rows = np.arange(53)
    parts: list[Part] = []
    for rank in range(world_size):
        parts += evaluation_parts(share(rows, rank, world_size), 8, (224, 224))
    assert sorted(np.concatenate([one.draws for one in parts])) == list(rows)
    assert max(len(one.draws) for one in parts) <= 8


def test_nothing_grows_with_the_number_of_epochs() -> None:
    paced = Columns(labels=LABELS, difficulty=np.linspace(0, 1, 100))
    far = sampler(paced, epochs=10_000, pacing="easy_to_hard").batches(12, (8, 8), step=8 * 9_000 + 5)
    assert next(far).epoch == 9_000


@pytest.mark.parametrize(
    ("sampling", "columns", "reason", "words"),
    [
        ({"balance": "weights"}, {}, "unsupported", "dataset has no column of weight"),
        ({"pacing": "easy_to_hard"}, {}, "unsupported", "dataset has no column of difficulty"),
        ({"balance": "weights"}, {"weight": [1, 1, -1, 1]}, "dataset_invalid", "weight of 2.png is -1.0"),
        ({"balance": "weights"}, {"weight": [1, None, 1, 1]}, "dataset_invalid", "weight of 1.png is missing"),
        ({"balance": "weights"}, {"weight": [1, 1, 1, np.inf]}, "dataset_invalid", "weight of 3.png is inf"),
        ({"balance": "weights"}, {"weight": [0, 0, 0, 0]}, "dataset_invalid", "all weights are zero"),
    ],
)
def test_columns_that_cannot_be_used_are_refused(
    tmp_path: Path, sampling: dict[str, Any], columns: dict[str, Any], reason: str, words: str
) -> None:
    data = select(make_pack(tmp_path / "pack", pictures([(8, 8)] * 4, 1), **columns))
    with pytest.raises(Failed, match=words) as refused:
        read_columns(data.items, data.splits["train"], Sampling(**sampling))
    assert refused.value.reason == reason
    assert refused.value.hint


def test_columns_are_taken_for_the_rows_of_the_split(tmp_path: Path) -> None:
    pack = make_pack(tmp_path / "pack", pictures([(8, 8)] * 4, 1), weight=[0.5, None, 2, 3], difficulty=[-1, 0, 1, 2])
    data = select(pack, train=[0, 2, 3], validation=[1])
    sampling = Sampling(balance="weights", pacing="easy_to_hard")
    columns = read_columns(data.items, data.splits["train"], sampling)
    assert columns.weights is not None
    assert columns.difficulty is not None
    assert list(columns.weights) == [0.5, 2, 3]
    assert list(columns.difficulty) == [-1, 1, 2]
