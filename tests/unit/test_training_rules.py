"""Rules of a training that need no training: early stopping, schedule, sampling, augmentation, layout."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from training_core.data.augment import light
from training_core.data.layout import read_layout
from training_core.data.sample import epoch_order, share
from training_core.data.sources import Entry
from training_core.early_stop import EarlyStop
from training_core.failure import Failed
from training_core.optim import learning_rate_at
from training_core.plan import log_every
from training_core.spec import EarlyStopping


@pytest.mark.parametrize(
    ("values", "patience", "min_delta", "stops_at"),
    [
        ([3.0, 2.0, 1.0, 0.5], 1, 0.0, None),
        ([1.0, 1.0], 1, 0.0, 1),
        ([1.0, 2.0, 0.9, 2.0, 2.0], 2, 0.0, 4),
        ([1.0, 0.95, 0.9], 2, 0.2, 2),
        ([math.nan, math.nan], 2, 0.0, 1),
        ([1.0, math.nan, 0.5, math.nan, math.nan], 2, 0.0, 4),
        ([math.nan, 1.0, 0.9], 2, 0.0, None),
    ],
)
def test_no_new_best_in_the_last_evaluations(
    values: list[float], patience: int, min_delta: float, stops_at: int | None
) -> None:
    rule, stop = EarlyStopping(patience=patience, min_delta=min_delta), EarlyStop()
    decisions = [stop.observe(value, step, rule) for step, value in enumerate(values)]
    assert (decisions.index(True) if True in decisions else None) == stops_at


def test_accuracy_rises() -> None:
    rule, stop = EarlyStopping(metric="validation/accuracy", patience=1), EarlyStop()
    assert not stop.observe(0.5, 1, rule)
    assert not stop.observe(0.6, 2, rule)
    assert stop.observe(0.6, 3, rule)
    assert (stop.best, stop.best_step) == (0.6, 2)


def test_the_learning_rate_warms_up_and_falls_to_nothing() -> None:
    plan: Any = SimpleNamespace(warmup_steps=10, total_steps=110, learning_rate=1.0, schedule="cosine")
    rates = [learning_rate_at(step, plan) for step in range(110)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[10] == 1.0
    assert rates[60] == pytest.approx(0.5)
    assert rates[-1] < 0.001


def test_an_epoch_is_a_permutation_and_ranks_share_it_exactly() -> None:
    indices = np.arange(10, 110)
    order = epoch_order(indices, seed=3, epoch=1)
    assert sorted(order) == list(indices)
    assert list(order) == list(epoch_order(indices, seed=3, epoch=1))
    assert list(order) != list(epoch_order(indices, seed=3, epoch=2))
    parts = [share(order[:13], rank, 3) for rank in range(3)]
    assert sorted(np.concatenate(parts)) == sorted(order[:13])


def test_augmentation_depends_on_the_sample_and_not_on_its_batch() -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 28, 28, 3), np.uint8)
    samples = np.arange(20) + 1000
    whole = light(images, samples, seed=1, epoch=2)
    halves = [light(images[part], samples[part], seed=1, epoch=2) for part in (slice(0, 20, 2), slice(1, 20, 2))]
    assert (whole[0::2] == halves[0]).all()
    assert (whole[1::2] == halves[1]).all()
    assert (whole != light(images, samples, seed=1, epoch=3)).any()


def test_curves_have_two_thousand_points_at_most() -> None:
    for steps in (1, 200, 201, 1000, 9_999, 20_000, 1_234_567):
        assert steps / log_every(steps) <= 2000


def entries(*paths: str) -> list[Entry]:
    return [Entry(path, 10, "") for path in paths]


@pytest.mark.parametrize(
    "paths",
    [
        ("cat/1.png", "dog/1.JPG"),
        ("pets/cat/1.png", "pets/dog/1.png"),
        ("train/cat/1.png", "train/dog/1.png", "val/cat/2.png"),
        ("pets/train/cat/1.png", "pets/train/dog/1.png", "pets/test/dog/2.png"),
        ("cat/deep/1.png", "dog/1.png", "README.md", ".DS_Store", "__MACOSX/cat/._1.png"),
    ],
)
def test_class_folders_are_found(paths: tuple[str, ...]) -> None:
    assert read_layout(entries(*paths), "file://x").classes == ["cat", "dog"]


def test_splits_and_what_is_left_out_are_told() -> None:
    layout = read_layout(
        entries("train/a/1.png", "train/b/1.png", "test/a/2.png", "valid/b/3.png", "n.txt"), "file://x"
    )
    assert layout.splits == [0, 0, 2, 1]
    assert layout.ignored == [{"path": "n.txt", "reason": "not_an_image_file"}]


@pytest.mark.parametrize(
    ("paths", "reason"),
    [
        ((), "dataset_empty"),
        (("a/notes.txt",), "dataset_empty"),
        (("1.png", "2.png"), "dataset_invalid"),
        (("a/1.png", "a/2.png"), "dataset_invalid"),
        (("train/a/1.png", "train/b/1.png", "test/c/1.png"), "dataset_invalid"),
    ],
)
def test_what_is_no_dataset_is_refused(paths: tuple[str, ...], reason: str) -> None:
    with pytest.raises(Failed) as refused:
        read_layout(entries(*paths), "file://x")
    assert refused.value.reason == reason
