"""All that changes besides the weights goes on bit for bit: average, plateau, growing images, cool-down."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.training.inside import train_inside
from tests.training.running import Run, make_run

CURVES = ("train/loss", "train/learning_rate", "validation/loss", "validation/accuracy", "test/loss")
COMMON = {"checkpoint_every_steps": 2, "keep_last_checkpoints": 100, "ema_decay": 0.9}


def resumed_equals_whole(
    tmp_path: Path, images: Path, training: dict[str, Any], from_steps: list[int], **changes: Any
) -> Run:
    """Train to the end, then again from some of its checkpoints; returns the whole run."""
    training = {**COMMON, **training}
    whole = make_run(tmp_path, f"file://{images}", training=training, **changes)
    assert train_inside(whole) == 0, whole.outcome
    saved = {one.step: one.path for one in whole.of_kind("checkpoint_saved")}
    expected = whole.last_checkpoint()
    for attempt, step in enumerate(from_steps, 2):
        run = make_run(
            tmp_path, f"file://{images}", training=training, attempt=attempt, resume_from=saved[step], **changes
        )
        assert train_inside(run) == 0, run.outcome
        assert run.of_kind("started")[0].resumed_from_step == step
        for name in CURVES:
            assert run.series(name) == whole.series(name), (name, step)
        raw = ["raw.safetensors"] if training["ema_decay"] is not None else []
        for name in ("model.safetensors", *raw, "optimizer.safetensors"):
            content = run.file(f"{run.last_checkpoint().path}/{name}").read_bytes()
            assert content == whole.file(f"{expected.path}/{name}").read_bytes(), (name, step)
        assert run.of_kind("summary")[0].metrics == whole.of_kind("summary")[0].metrics
        assert [one.model_copy(update={"seq": 0, "at": 0}) for one in run.of_kind("early_stopped")] == [
            one.model_copy(update={"seq": 0, "at": 0}) for one in whole.of_kind("early_stopped")
        ]
    return whole


def test_in_the_middle_of_a_cool_down_with_growing_images(tmp_path: Path, images: Path) -> None:
    """36 training images are three steps an epoch; the rule fires after epoch 2, and 3 steps of decay follow."""
    whole = resumed_equals_whole(
        tmp_path,
        images,
        {
            "epochs": 30,
            "schedule": {"name": "cosine", "warmup_epochs": 1, "final_fraction": 0.05},
            "resizing": {"start": 0.5, "until": 0.1},
            "early_stopping": {"patience": 1, "min_delta": 10.0},
            "optimizer": {"name": "nadam", "learning_rate": 0.01},
        },
        [4, 8],
    )
    [stopped] = whole.of_kind("early_stopped")
    assert stopped.step == 9
    rates = [rate for _, rate in whole.series("train/learning_rate")]
    assert len(rates) == 9
    assert rates[5] == pytest.approx(rates[6], rel=0.05)
    assert rates[8] < 0.5 * rates[6], "the decay came before the end"


def test_in_the_middle_of_a_plateau(tmp_path: Path, images: Path) -> None:
    whole = resumed_equals_whole(
        tmp_path,
        images,
        {
            "epochs": 12,
            "schedule": {"name": "plateau", "patience": 1, "factor": 0.5, "warmup_epochs": 0},
            "early_stopping": None,
            "optimizer": {"name": "muon", "learning_rate": 0.3},
        },
        [10, 20],
    )
    rates = {round(rate, 9) for _, rate in whole.series("train/learning_rate")}
    assert len(rates) > 2, "the rate was lowered more than once"


@pytest.mark.parametrize("ema_decay", [0.8, None])
def test_statistics_that_are_taken_anew_are_taken_alike(tmp_path: Path, images: Path, ema_decay: float | None) -> None:
    """From a checkpoint at an evaluation, and from one in the middle of an epoch."""
    training = {"epochs": 5, "ema_decay": ema_decay}
    whole = resumed_equals_whole(tmp_path, images, training, [6, 8], model="small_resnet")
    assert len({value for _, value in whole.series("validation/loss")}) == 5
