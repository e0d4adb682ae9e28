"""A member of a population goes on from another one's checkpoint, with parameters of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import nn

from tests.training.inside import train_inside
from tests.training.running import Run, make_run
from training_core.checkpoints.checkpoint import read
from training_core.storage.store import open_store
from training_core.vision.networks import make_model

# 45 training images are three steps an epoch; no warm-up, so that the rate of a step says which spec it is from.
DONOR: dict[str, Any] = {
    "epochs": 4,
    "optimizer": {"name": "adamw", "learning_rate": 0.01, "weight_decay": 0.1},
    "schedule": {"name": "constant", "warmup_epochs": 0},
    "early_stopping": {"patience": 1, "min_delta": 0.0},
}
OTHER = {**DONOR, "optimizer": {"name": "adamw", "learning_rate": 0.002, "weight_decay": 0.0}, "ema_decay": 0.5}
BETA = 0.999


def member(folder: Path, images: Path, training: dict[str, Any], **changes: Any) -> Run:
    return make_run(folder, f"file://{images}", training=training, rung=0, **changes)


@pytest.fixture
def donor(tmp_path: Path, images: Path) -> Run:
    """Three of its four epochs, of which the first is the best one."""
    run = member(tmp_path, images, {**DONOR, "early_stopping": None}, until=0.5)
    assert train_inside(run) == 0, run.outcome
    return run


def files_of(run: Run, trial: int) -> dict[str, bytes]:
    folder = run.file(f"jobs/local/trial-{trial}")
    return {str(one.relative_to(folder)): one.read_bytes() for one in folder.rglob("*") if one.is_file()}


def test_weights_optimizer_and_place_are_taken_over_and_the_rest_is_its_own(
    tmp_path: Path, images: Path, donor: Run
) -> None:
    training, theirs, before = {**OTHER, "early_stopping": None}, donor.last_checkpoint(), files_of(donor, 0)
    run = member(tmp_path, images, training, trial=1, adopt=True, resume_from=theirs.path, until=7 / 12)
    assert train_inside(run) == 0, run.log()
    assert run.of_kind("started")[0].resumed_from_step == 6
    assert run.series("train/learning_rate") == [(7, 0.002)], "nothing of the other's curves is told again"
    [reached] = run.of_kind("rung_reached")
    assert (reached.step, run.outcome.reason) == (7, "rung_reached")
    content = read(open_store(run.spec), run.last_checkpoint().path, run.spec)
    assert (content.state.step, content.state.images_seen) == (7, 7 * 12)
    assert (content.state.best, content.state.best_step, content.state.best_checkpoint) == (None, 0, None)
    assert content.state.kept == [run.last_checkpoint().path]
    assert [group["weight_decay"] for group in content.groups] == [0.0]
    for name, (mine, other) in second_moments(run, donor).items():
        # What was there is in it, and of no other parameter: squares only add to it.
        assert mine.shape == other.shape, name
        assert (mine >= BETA * other * (1 - 1e-5)).all(), name
    assert files_of(donor, 0) == before


def second_moments(run: Run, donor: Run) -> dict[str, tuple[Any, Any]]:
    """By name of the parameter; without weight decay they are one group, with it matrices come first."""
    network: nn.Module = make_model("small_cnn", channels=1, classes=3)
    names = [name for name, _ in network.named_parameters()]
    matrices = [name for name, one in network.named_parameters() if one.ndim >= 2]
    orders = (names, [*matrices, *(name for name in names if name not in matrices)])
    mine, other = (load_file(one.file(f"{one.last_checkpoint().path}/optimizer.safetensors")) for one in (run, donor))
    return {
        name: (mine[f"{orders[0].index(name)}.exp_avg_sq"], other[f"{orders[1].index(name)}.exp_avg_sq"])
        for name in names
    }


def test_with_the_same_parameters_it_is_the_same_training(tmp_path: Path, images: Path) -> None:
    """But for what is kept: a way to see that nothing is lost on the way."""
    plain = {**DONOR, "early_stopping": None}
    whole = make_run(tmp_path / "whole", f"file://{images}", training=plain, data_roots=[images.parent])
    assert train_inside(whole) == 0
    first = member(tmp_path, images, plain, until=0.25)
    assert train_inside(first) == 0
    path, kept = first.last_checkpoint().path, {**plain, "keep_last_checkpoints": 2}
    run = make_run(tmp_path, f"file://{images}", training=kept, trial=1, adopt=True, resume_from=path)
    assert train_inside(run) == 0
    ends = [one.file(f"{one.last_checkpoint().path}/model.safetensors").read_bytes() for one in (run, whole)]
    assert ends[0] == ends[1]
    assert run.series("train/loss") == [point for point in whole.series("train/loss") if point[0] > 3]


def test_it_goes_on_from_its_own_checkpoints_exactly(tmp_path: Path, images: Path, donor: Run) -> None:
    training = {**OTHER, "early_stopping": None}
    place = {"trial": 1, "adopt": True}
    whole = make_run(
        tmp_path, f"file://{images}", training=training, resume_from=donor.last_checkpoint().path, job_id="a",
        **place,
    )  # fmt: skip
    assert train_inside(whole) == 0, whole.log()
    first = member(tmp_path, images, training, resume_from=donor.last_checkpoint().path, until=0.7, **place)
    assert train_inside(first) == 0, first.log()
    second = make_run(
        tmp_path, f"file://{images}", training=training, attempt=2, resume_from=first.last_checkpoint().path, **place
    )
    assert train_inside(second) == 0, second.log()
    assert second.of_kind("started")[0].resumed_from_step == 8
    for name in ("train/loss", "validation/loss", "test/accuracy"):
        assert second.series(name) == whole.series(name), name


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path, images: Path, donor: Run) -> None:
    path = donor.last_checkpoint().path
    run = member(tmp_path, images, OTHER, trial=1, adopt=True, resume_from=path, model="small_resnet")
    assert train_inside(run) == 1
    assert run.outcome.reason == "checkpoint_invalid"
    assert "model.name is 'small_cnn' there and 'small_resnet' here" in (run.outcome.message or "")


def test_a_checkpoint_of_other_data_is_refused(tmp_path: Path, images: Path, donor: Run) -> None:
    for one in sorted((images / "class-0").iterdir())[:2]:
        one.unlink()
    run = member(tmp_path, images, OTHER, trial=1, adopt=True, resume_from=donor.last_checkpoint().path)
    assert train_inside(run) == 1
    assert run.outcome.reason == "checkpoint_invalid"
    assert "its version of the data is" in (run.outcome.message or "")


def test_without_adopt_other_parameters_are_refused_as_ever(tmp_path: Path, images: Path, donor: Run) -> None:
    run = member(tmp_path, images, OTHER, trial=1, resume_from=donor.last_checkpoint().path)
    assert train_inside(run) == 1
    assert run.outcome.reason == "checkpoint_invalid"


def test_a_damaged_one_leaves_the_trial_with_its_own_weights(tmp_path: Path, images: Path, donor: Run) -> None:
    mine = member(tmp_path, images, {**DONOR, "early_stopping": None}, trial=1, until=0.25)
    assert train_inside(mine) == 0
    damaged = donor.last_checkpoint().path
    donor.file(f"{damaged}/model.safetensors").write_bytes(b"")
    training = {**OTHER, "early_stopping": None}
    run = member(tmp_path, images, training, trial=1, attempt=2, adopt=True, resume_from=damaged, until=0.5)
    assert train_inside(run) == 0, run.log()
    assert [one.alert for one in run.of_kind("alert_raised")][:1] == ["checkpoint_damaged"]
    assert run.of_kind("started")[0].resumed_from_step == 3
    assert run.series("train/learning_rate")[0] == (4, 0.002)


def test_what_a_rung_began_with_stays_until_the_next_rung(tmp_path: Path, images: Path, donor: Run) -> None:
    """Another trial may have been told to go on from it and come late."""
    first = donor.last_checkpoint().path
    training = {**DONOR, "early_stopping": None}
    for attempt, (until, kept) in enumerate([(0.75, {6, 9}), (1.0, {9, 12})], 2):
        run = make_run(
            tmp_path, f"file://{images}", training=training, attempt=attempt, rung=attempt, until=until,
            resume_from=first,
        )  # fmt: skip
        assert train_inside(run) == 0, run.log()
        steps = {int(one.name.removeprefix("step-")) for one in run.file("jobs/local/trial-0").glob("attempt-*/step-*")}
        assert kept <= steps
        first = run.last_checkpoint().path
