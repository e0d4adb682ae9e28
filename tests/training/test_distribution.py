"""Whole trainings whose weights are cut up among ranks, and which go on with another number of ranks."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.running import Run, make_run

TRAINING = {"epochs": 4, "keep_last_checkpoints": 9, "checkpoint_every_steps": 3, "ema_decay": 0.9}
CURVES = ("train/loss", "validation/loss", "test/loss")


def test_a_sharded_training_goes_on_with_one_rank_and_is_the_same(tmp_path: Path, images: Path) -> None:
    """Elastic: a checkpoint of two ranks is one rank's too."""
    compute = {"strategy": "fsdp"}
    two = make_run(tmp_path, f"file://{images}", training=TRAINING, compute=compute, devices=2)
    assert two.finish() == 0, two.log()
    assert two.of_kind("plan_chosen")[0].resolved["compute.strategy"] == "fsdp"
    early = two.of_kind("checkpoint_saved")[1]
    one = make_run(tmp_path, f"file://{images}", training=TRAINING, compute=compute, attempt=2, resume_from=early.path)
    assert one.finish() == 0, one.log()
    assert one.of_kind("started")[0].resumed_from_step == early.step
    same(one, two)


def same(one: Run, other: Run) -> None:
    for name in CURVES:
        steps, values = zip(*one.series(name), strict=True)
        other_steps, other_values = zip(*other.series(name), strict=True)
        assert steps == other_steps
        assert values == pytest.approx(other_values, rel=5e-3, abs=1e-4), name
