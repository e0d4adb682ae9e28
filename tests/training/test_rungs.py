"""A trial of a search ends at a rung, says how good it is there, and goes on later as if it had never stopped."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.training.inside import train_inside
from tests.training.running import ROOT, Run, make_run
from training_core.contract.errors import Reason
from training_core.data.sampler import Sampler, first_of_order, read_columns
from training_core.distributed.ranks import Ranks
from training_core.engine import rung_evaluation
from training_core.engine.rung_evaluation import LEAST_IMAGES, images_at
from training_core.planner.plan import choose_plan
from training_core.runtime.launch import prepare as prepare_data
from training_core.runtime.planning import PROBE_FOLDER, SHORT_RUN_SECONDS, data_facts, in_time, plan_compute
from training_core.tasks.image_classification.features import FeatureFeed
from training_core.vision.dataset_view import Chosen
from training_core.vision.prepare import prepare

CURVES = ("train/loss", "train/learning_rate", "validation/loss", "validation/accuracy", "test/loss", "test/accuracy")
TENSORS = ("model.safetensors", "raw.safetensors", "optimizer.safetensors")
# 45 training images are three steps an epoch: rungs within the first epoch, at the end of one, and within another.
RUNGS, STEPS = (0.05, 0.5, 0.7), (1, 6, 8)
TRAINING = {"epochs": 4, "ema_decay": 0.9, "optimizer": {"name": "adamw", "learning_rate": 0.01}}


def checkpoint(step: int, *, attempt: int = 1, trial: int = 0) -> str:
    return f"jobs/local/trial-{trial}/attempt-{attempt}/step-{step:08d}"


def in_pieces(folder: Path, images: Path, training: dict[str, Any], **changes: Any) -> list[Run]:
    """Run dirs of one trial that goes through all rungs and to the end, each resuming what the one before left."""
    runs, before = [], None
    for number, until in enumerate((*RUNGS, None)):
        place = {"rung": None if until is None else number, "until": until, "resume_from": before}
        runs.append(make_run(folder, f"file://{images}", training=training, attempt=number + 1, **place, **changes))
        before = checkpoint(STEPS[number], attempt=number + 1) if until is not None else None
    return runs


def assert_same_training(pieces: list[Run], whole: Run) -> None:
    for name in CURVES:
        assert pieces[-1].series(name) == whole.series(name), name
    for name in TENSORS:
        content = pieces[-1].file(f"{pieces[-1].last_checkpoint().path}/{name}").read_bytes()
        assert content == whole.file(f"{whole.last_checkpoint().path}/{name}").read_bytes(), name
    mine, theirs = pieces[-1].of_kind("summary")[0], whole.of_kind("summary")[0]
    assert (mine.metrics, mine.best_step, mine.images_seen) == (theirs.metrics, theirs.best_step, theirs.images_seen)


def test_through_three_rungs_is_the_same_training(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rung_evaluation, "LEAST_IMAGES", 4)
    whole = make_run(tmp_path / "whole", f"file://{images}", training=TRAINING, data_roots=[images.parent])
    assert train_inside(whole) == 0, whole.log()
    pieces = in_pieces(tmp_path / "pieces", images, TRAINING, data_roots=[images.parent])
    for number, run in enumerate(pieces):
        assert train_inside(run) == 0, run.outcome
        assert run.outcome.result == "completed"
        if run is pieces[-1]:
            break
        [reached] = run.of_kind("rung_reached")
        assert run.outcome.reason == "rung_reached"
        assert (reached.rung, reached.fraction, reached.step) == (number, RUNGS[number], STEPS[number])
        assert reached.step == run.outcome.step == run.last_checkpoint().step
        # No more than half of those trained on by then, which are 9; all 18 from a quarter of the training on.
        assert reached.images == (18 if number else 4)
        assert set(reached.values) == {"validation/loss", "validation/accuracy"}
        assert run.kinds().index("checkpoint_saved") < run.kinds().index("rung_reached")
        assert "summary" not in run.kinds()
    assert pieces[1].of_kind("rung_reached")[0].values["validation/loss"] == dict(whole.series("validation/loss"))[6]
    assert pieces[-1].outcome.reason is None
    assert_same_training(pieces, whole)


def test_two_ranks_through_three_rungs_are_the_same_training(tmp_path: Path, images: Path) -> None:
    changes: dict[str, Any] = {"devices": 2, "data_roots": [images.parent], "cache_dir": tmp_path / "cache"}
    training = {**TRAINING, "batch_size": 13}
    whole = make_run(tmp_path / "whole", f"file://{images}", training=training, **changes)
    pieces = in_pieces(tmp_path / "pieces", images, training, **changes)
    command = [sys.executable, "-m", "tests.training.forked", *(str(run.dir.path) for run in (whole, *pieces))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == "[0, 0, 0, 0, 0]", [done.stderr, *(run.log() for run in pieces)]
    assert [run.of_kind("plan_chosen")[0].world_size for run in pieces] == [2, 2, 2, 2]
    alone = whole.series("validation/loss")
    assert pieces[1].of_kind("rung_reached")[0].values["validation/loss"] == dict(alone)[6]
    assert_same_training(pieces, whole)


def test_an_attempt_that_died_before_its_report_reports_without_a_step(tmp_path: Path, images: Path) -> None:
    first = make_run(tmp_path, f"file://{images}", training=TRAINING, rung=0, until=0.5)
    assert train_inside(first) == 0, first.outcome
    again = make_run(
        tmp_path, f"file://{images}", training=TRAINING, rung=0, until=0.5, attempt=2, resume_from=checkpoint(6)
    )
    assert train_inside(again) == 0, again.outcome
    [one], [other] = first.of_kind("rung_reached"), again.of_kind("rung_reached")
    assert one.model_copy(update={"seq": 0, "at": 0}) == other.model_copy(update={"seq": 0, "at": 0})
    assert not {"first_step", "checkpoint_saved"} & set(again.kinds())
    assert again.outcome.reason == "rung_reached"


def test_a_trial_that_ends_before_its_rung_is_complete(tmp_path: Path, images: Path) -> None:
    training = {
        "epochs": 10,
        "schedule": {"name": "constant", "warmup_epochs": 0},
        "early_stopping": {"patience": 1, "min_delta": 10.0},
    }
    run = make_run(tmp_path, f"file://{images}", training=training, rung=1, until=0.9)
    assert train_inside(run) == 0, run.outcome
    assert (run.outcome.result, run.outcome.reason) == ("completed", Reason.EARLY_STOPPED)
    assert run.outcome.step == 6
    assert {"early_stopped", "summary"} <= set(run.kinds())
    assert "rung_reached" not in run.kinds()


def test_speed_and_account_of_a_trial_in_pieces(tmp_path: Path, images: Path) -> None:
    runs = in_pieces(tmp_path, images, TRAINING)
    assert [train_inside(run) for run in runs] == [0, 0, 0, 0]
    accounts = [run.of_kind("efficiency")[-1].account for run in runs]
    assert [one["step_count"] for one in accounts] == [1, 5, 2, 4]
    assert {one["verdict"]["kind"] for one in accounts} == {"too_short"}
    [summary] = runs[-1].of_kind("summary")
    seconds = sum(part["seconds"] for one in accounts for part in one["steps"].values())
    assert summary.images_seen == 12 * 12
    assert summary.images_per_second == pytest.approx(12 * 12 / seconds, rel=0.02)


def test_a_trial_that_is_cut_to_seconds_is_not_probed_first(tmp_path: Path, images: Path) -> None:
    # At eleven steps an epoch, more than a minute by what is published of any CPU.
    run = make_run(tmp_path, f"file://{images}", training={"epochs": 10_000, "batch_size": 4}, rung=0, until=0.001)
    assert prepare_data(run.dir) == 0
    prediction = plan_compute(run.dir).prediction
    assert prediction is not None
    assert prediction.hours * 3600 > SHORT_RUN_SECONDS, "it tells of the whole training"
    assert "probed" not in run.kinds()
    assert not (tmp_path / "cache" / PROBE_FOLDER).exists()


def test_a_trial_that_ends_at_a_rung_keeps_its_epochs(tmp_path: Path, images: Path) -> None:
    run = make_run(tmp_path, f"file://{images}", training={"epochs": "auto"}, rung=0, until=0.5)
    assert prepare_data(run.dir) == 0
    plan = choose_plan(run.spec.spec, data_facts(run.dir.read_prepared()), device="cpu")
    compute = plan_compute(run.dir)
    assert compute.prediction is not None
    seconds = compute.prediction.hours * 3600
    half, less = (run.spec.model_copy(update={"train_seconds": part * seconds}) for part in (0.51, 0.4))
    assert in_time(compute, half, plan, step=0) == compute
    short = in_time(compute, less, plan, step=0)
    assert short.epochs == compute.epochs
    assert short.warnings[-1].startswith("schedule_longer_than_budget: ")


def test_trials_are_judged_on_the_same_images() -> None:
    rows = np.arange(100, 3100)
    few, more = first_of_order(rows, 512, 7), first_of_order(rows, 1024, 7)
    assert len(set(few.tolist())) == 512
    assert set(few.tolist()) < set(more.tolist()) < set(rows.tolist())
    assert (np.diff(few) > 0).all(), "as they lie in the pack"
    assert set(first_of_order(rows, 512, 8).tolist()) != set(few.tolist())
    assert (first_of_order(rows, 3000, 7) == rows).all()


@pytest.mark.parametrize(
    ("fraction", "trained", "validation", "expected"),
    [(1 / 120, 100, 12_000, LEAST_IMAGES), (1 / 120, 4100, 12_000, 1024), (1 / 30, 8191, 12_000, 1024),
     (2 / 15, 60_000, 12_000, 8192), (1 / 120, 100, 300, 300), (0.25, 100, 12_000, 12_000)],
)  # fmt: skip
def test_how_many_images_are_judged(fraction: float, trained: float, validation: int, expected: int) -> None:
    assert images_at(fraction, trained, validation) == expected


def test_the_head_alone_is_judged_on_the_same_images(tmp_path: Path, images: Path) -> None:
    run = make_run(tmp_path, f"file://{images}")
    data = Chosen(prepare(run.spec, lambda: False, lambda _: None))
    features = np.arange(len(data.pack), dtype=np.float32)[:, None]
    rows = data.splits["train"]
    some = first_of_order(data.splits["validation"], 7, 0)
    seen = []
    for rank in range(2):
        sampling = run.spec.spec.training.sampling
        sampler = Sampler(rows, sampling, read_columns(data.items, rows, sampling), seed=0, epochs=1)
        feed = FeatureFeed(data, features, sampler, 12, Ranks(rank, 2, torch.device("cpu")))
        seen += [int(one) for batch in feed.evaluation("validation", some) for one in batch.images[:, 0]]
    assert sorted(seen) == some.tolist()
