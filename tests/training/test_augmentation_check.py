"""Short trainings in pairs: what they prove, and what follows from it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.training.running import Run, make_run
from training_core.preflight.augmentation_check import PAIRS, compare
from training_core.preflight.short_run import Judged

IMAGES = 200


def judged(seed: int, quality: float) -> Judged:
    """Two classes; the logit of the right one is higher by `quality` in the mean."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 2, (IMAGES,), generator=random)
    logits = torch.randn((IMAGES, 2), generator=random)
    logits[torch.arange(IMAGES), labels] += quality
    return Judged(labels, logits.softmax(dim=1))


@pytest.mark.parametrize(
    ("given", "without", "verdict"),
    [(2.0, 1.0, "helps"), (1.0, 2.0, "hurts"), (1.5, 1.5, "undecided"), (1.52, 1.5, "undecided")],
)
def test_the_verdict_follows_the_loss(given: float, without: float, verdict: str) -> None:
    pairs = [(judged(pair, given), judged(pair, without)) for pair in range(PAIRS)]
    found = compare("light", pairs, steps=30, epochs=2.0)
    assert found.verdict == verdict
    assert found.loss.clear is (verdict != "undecided")
    assert (found.loss.value < 0) is (given > without)


def test_seeds_that_disagree_decide_nothing() -> None:
    """The mean says that it helps; one seed in three says the opposite."""
    pairs = [(judged(0, 3.0), judged(0, 1.0)), (judged(1, 3.0), judged(1, 1.0)), (judged(2, 0.5), judged(2, 3.0))]
    assert compare("light", pairs, steps=30, epochs=2.0).verdict == "undecided"


def test_few_images_decide_less_than_many() -> None:
    pairs = [(judged(pair, 1.8), judged(pair, 1.4)) for pair in range(PAIRS)]
    few = [tuple(Judged(one.labels[:8], one.probabilities[:8]) for one in pair) for pair in pairs]
    every = compare("light", pairs, steps=30, epochs=2.0)
    some = compare("light", [(one, other) for one, other in few], steps=30, epochs=2.0)
    assert some.loss.noise > 2 * every.loss.noise


def told(right: int, confidence: float, doubt: float) -> Judged:
    """`right` of 100 images are right with `confidence`, the others wrong with `doubt` for the label."""
    labels = torch.zeros(100, dtype=torch.int64)
    own = torch.cat([torch.full((right,), confidence), torch.full((100 - right,), doubt)])
    return Judged(labels, torch.stack([own, 1 - own], dim=1))


def test_an_accuracy_that_clearly_says_the_opposite_makes_it_undecided() -> None:
    """Without: 70 of 100 right, and sure of them. With: all right, and hardly sure."""
    pairs = [(told(100, 0.51, 0.0), told(70, 0.9, 0.45))] * PAIRS
    found = compare("light", pairs, steps=30, epochs=2.0)
    assert found.loss.clear
    assert found.accuracy.clear
    assert found.loss.value > 0
    assert found.accuracy.value > 0
    assert found.verdict == "undecided"


def test_a_loss_that_is_no_number_decides_nothing() -> None:
    bad = Judged(torch.zeros(10, dtype=torch.int64), torch.full((10, 2), math.nan))
    assert compare("light", [(bad, bad)] * PAIRS, steps=30, epochs=2.0).verdict == "undecided"


def mirrored_images(folder: Path) -> Path:
    """Two classes that a horizontal flip turns into each other: rising and falling stripes."""
    random = np.random.default_rng(3)
    rows, columns = np.mgrid[0:16, 0:16]
    for label, direction in enumerate((1, -1)):
        (folder / f"class-{label}").mkdir(parents=True)
        for number in range(60):
            pattern = 128 + 80 * np.sin((rows + direction * columns) * 0.8 + random.uniform(0, 6))
            noisy = np.clip(pattern + random.normal(0, 50, (16, 16)), 0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(folder / f"class-{label}" / f"{number:03d}.png")
    return folder


def checked(tmp_path: Path, images: Path, preset: str, **changes: Any) -> Run:
    training = {"epochs": 60, "augmentation": {"preset": preset, "check": True}, "batch_size": 12}
    return make_run(tmp_path, f"file://{images}", training=training, **changes)


def test_auto_leaves_out_what_hurts_and_a_resumed_training_remembers_it(tmp_path: Path) -> None:
    images = mirrored_images(tmp_path / "mirrored")
    run = checked(tmp_path, images, "auto")
    assert run.finish() == 0, run.log()
    [alert] = run.of_kind("alert_raised")
    assert alert.alert == "augmentation_check"
    assert alert.data["verdict"] == "hurts", alert
    assert alert.data["preset"] == "light"
    assert alert.data["used"] == "none"
    [plan] = run.of_kind("plan_chosen")
    assert plan.resolved["training.augmentation.preset"] == "none"
    assert "check" in plan.reasons["training.augmentation.preset"]
    kept = run.file("jobs/local/trial-0/augmentation_check.json")
    made = kept.stat().st_mtime_ns
    again = checked(tmp_path, images, "auto", attempt=2, resume_from=run.last_checkpoint().path)
    assert again.finish() == 0, again.log()
    assert kept.stat().st_mtime_ns == made
    [same] = again.of_kind("plan_chosen")
    assert same.resolved == plan.resolved


def test_what_the_spec_pins_stays(tmp_path: Path) -> None:
    run = checked(tmp_path, mirrored_images(tmp_path / "mirrored"), "light")
    assert run.finish() == 0, run.log()
    [alert] = [one for one in run.of_kind("alert_raised") if "verdict" in one.data]
    assert (alert.data["verdict"], alert.data["used"]) == ("hurts", "light")
    [plan] = run.of_kind("plan_chosen")
    assert plan.resolved["training.augmentation.preset"] == "light"


def test_two_ranks_train_with_what_the_first_decided(tmp_path: Path) -> None:
    images = mirrored_images(tmp_path / "mirrored")
    run = make_run(
        tmp_path,
        f"file://{images}",
        training={"epochs": 3, "augmentation": {"check": True}, "batch_size": 12},
        devices=2,
    )
    assert run.finish() == 0, run.log()
    [alert] = run.of_kind("alert_raised")
    [plan] = run.of_kind("plan_chosen")
    assert plan.resolved["training.augmentation.preset"] == alert.data["used"]


def test_a_stop_ends_the_check(tmp_path: Path, images: Path) -> None:
    run = make_run(
        tmp_path,
        f"file://{images}",
        training={"epochs": 5000, "augmentation": {"preset": "light", "check": True}, "batch_size": 12},
    )
    with run.start() as process:
        while not run.dir.events.exists() or "data_ready" not in run.kinds():
            assert process.poll() is None, run.log()
        run.dir.request_stop()
        assert process.wait(120) == 0
    assert run.outcome.result == "stopped"
    assert run.outcome.step == 0
