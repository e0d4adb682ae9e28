"""The second inspection: swapped labels are found by trainings that have not seen them."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.training.running import Run, make_images, make_run
from training_core.contract.spec import JobSpec, LabelCheck
from training_core.planner.plan import Plan, choose_plan
from training_core.planner.recipe import DataFacts
from training_core.preflight.folds import assign_folds
from training_core.preflight.label_check import FEWEST_EPOCHS, epochs_of, fold_plan
from training_core.vision.inspection.report import DataReport


def test_folds_spread_every_class_and_keep_units_together() -> None:
    random = np.random.default_rng(1)
    labels = random.integers(0, 5, 600)
    units = np.arange(600)
    units[1:100:2] = units[0:100:2]  # fifty pairs of copies
    fold = assign_folds(labels, units, 4, seed=3)
    assert (fold[1:100:2] == fold[0:100:2]).all()
    alone = np.arange(600) >= 100
    for label in range(5):
        counts = np.bincount(fold[alone & (labels == label)], minlength=4)
        assert counts.max() - counts.min() <= counts.sum() * 0.3
    assert np.ptp(np.bincount(fold, minlength=4)) <= 30
    assert np.array_equal(fold, assign_folds(labels, units, 4, seed=3))
    assert not np.array_equal(fold, assign_folds(labels, units, 4, seed=4))


def test_folds_of_single_images_differ_by_one_image_a_class() -> None:
    labels = np.repeat(np.arange(7), 23)
    fold = assign_folds(labels, np.arange(len(labels)), 3, seed=0)
    for label in range(7):
        assert np.ptp(np.bincount(fold[labels == label], minlength=3)) <= 1


def plan_for(images: int, epochs: int) -> Plan:
    spec = JobSpec.model_validate(
        {
            "task": "image-classification",
            "dataset": {"uri": "file:///x"},
            "training": {"epochs": epochs, "augmentation": {"mixup": 0.2}},
        }
    )
    facts = DataFacts(images, 10, 1, 28, "small")
    return choose_plan(spec, facts, device="cpu")


@pytest.mark.parametrize(
    ("images", "planned", "expected"), [(500, 100, 27), (500, 10, 10), (500, 1, FEWEST_EPOCHS), (60_000, 50, 3)]
)
def test_auto_epochs_are_a_few(images: int, planned: int, expected: int) -> None:
    assert epochs_of(LabelCheck(), plan_for(images, planned), images) == expected
    assert epochs_of(LabelCheck(epochs=7), plan_for(images, planned), images) == 7


def test_a_fold_holds_a_whole_schedule_and_mixes_nothing() -> None:
    plan = fold_plan(plan_for(500, 100), images=20, epochs=6)
    assert plan.batch_size == 20
    assert plan.total_steps == 6
    assert plan.mixing.mixup == 0


def swap_labels(images: Path, pairs: int) -> set[str]:
    """Moves images of class-0 to class-1 and back, in disguise; returns their paths afterwards."""
    swapped = set()
    for number in range(pairs):
        for source, target in (("class-0", "class-1"), ("class-1", "class-0")):
            old = images / source / f"{number:03d}.png"
            new = images / target / f"moved-{number:03d}.png"
            old.rename(new)
            swapped.add(f"{target}/{new.name}")
    return swapped


def read_report(run: Run) -> DataReport:
    return DataReport.model_validate_json(run.file("jobs/local/data_report/data_report.json").read_bytes())


def check_run(tmp_path: Path, images: Path, **changes: Any) -> Run:
    dataset = {"label_check": {"folds": 3, "epochs": 25}, "split": {"validation": 0.2}}
    training = {"epochs": 6, "batch_size": 12, "early_stopping": None}
    return make_run(tmp_path, f"file://{images}", dataset=dataset, training=training, **changes)


def test_swapped_labels_are_found_and_reported(tmp_path: Path) -> None:
    images = make_images(tmp_path / "stripes", each=40)
    swapped = swap_labels(images, 3)
    run = check_run(tmp_path, images)
    assert run.finish() == 0, run.log()
    assert run.outcome.result == "completed"
    kinds = [kind for kind in run.kinds() if kind != "efficiency"]
    assert kinds[-2:] == ["summary", "data_reported"], run.of_kind("alert_raised")
    before, after = run.of_kind("data_reported")
    assert after.path == before.path
    assert after.findings == before.findings | {"label_errors": after.findings["label_errors"]}
    report = read_report(run)
    check = report.label_check
    assert check is not None
    errors, hard = report.findings[-2:]
    assert after.findings["label_errors"] == errors.count
    assert (errors.finding, hard.finding) == ("label_errors", "hardest_examples")
    found = {one.path for one in errors.examples}
    assert len(found & swapped) >= 5
    assert len(found - swapped) <= 2
    for one in errors.examples:
        if one.path in swapped:
            assert one.suggested_label == ("class-0" if one.label == "class-1" else "class-1")
            assert one.thumbnail is not None
            assert one.thumbnail.startswith("data:image/jpeg;base64,")
    assert check.images == 120
    assert check.accuracy > 0.8
    with run.file(f"{after.path}/{check.difficulty_file}").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 120
    difficulty = {line["path"]: float(line["difficulty"]) for line in lines}
    assert all(float(line["difficulty"]) == pytest.approx(1 - float(line["self_confidence"])) for line in lines)
    assert np.mean([difficulty[path] for path in swapped]) > 0.8 > np.median(list(difficulty.values()))


@pytest.mark.long
def test_the_difficulties_pace_the_next_job(tmp_path: Path) -> None:
    images = make_images(tmp_path / "stripes", each=12)
    first = make_run(
        tmp_path,
        f"file://{images}",
        dataset={"label_check": {"folds": 3}},
        training={"epochs": 3, "batch_size": 12},
    )
    assert first.finish() == 0, first.log()
    check = read_report(first).label_check
    assert check is not None
    manifest = images / "difficulty.csv"
    folder = first.of_kind("data_reported")[-1].path
    manifest.write_bytes(first.file(f"{folder}/{check.difficulty_file}").read_bytes())
    dataset = {"columns": {"difficulty": "difficulty"}}
    second = make_run(
        tmp_path,
        f"file://{manifest}",
        dataset=dataset,
        training={"epochs": 3, "batch_size": 6, "sampling": {"pacing": "easy_to_hard"}},
        job_id="second",
    )
    assert second.finish() == 0, second.log()
    [ready] = second.of_kind("data_ready")
    assert ready.images == first.of_kind("data_ready")[0].images
    assert ready.images["test"] > 0


def test_a_stop_during_the_check_leaves_the_training_complete(tmp_path: Path, images: Path) -> None:
    run = make_run(
        tmp_path,
        f"file://{images}",
        dataset={"label_check": {"folds": 2, "epochs": 1000}},
        training={"epochs": 1, "batch_size": 12},
    )
    with run.start() as process:
        while not run.dir.events.exists() or "summary" not in run.kinds():
            assert process.poll() is None, run.log()
        run.dir.request_stop()
        assert process.wait(120) == 0
    assert run.outcome.result == "completed"
    assert run.of_kind("alert_raised")[-1].alert == "label_check"
    assert len(run.of_kind("data_reported")) == 1


def test_a_check_that_fails_does_not_lose_the_model(tmp_path: Path, images: Path) -> None:
    run = make_run(
        tmp_path,
        f"file://{images}",
        dataset={"label_check": {"folds": 2, "epochs": 1}},
        training={"epochs": 200, "batch_size": 12},
    )
    with run.start() as process:
        while not run.dir.events.exists() or "first_step" not in run.kinds():
            assert process.poll() is None, run.log()
        run.file("jobs/local/data_report/data_report.json").write_text("{}")
        assert process.wait(120) == 0
    assert run.outcome.result == "completed"
    [alert] = [one for one in run.of_kind("alert_raised") if one.alert == "label_check"]
    assert "ValidationError" in alert.message
    assert json.loads(run.dir.outcome.read_bytes())["result"] == "completed"


def test_the_first_of_two_ranks_checks_when_both_have_trained(tmp_path: Path, images: Path) -> None:
    run = make_run(
        tmp_path,
        f"file://{images}",
        dataset={"label_check": {"folds": 2, "epochs": 2}},
        training={"epochs": 1, "batch_size": 12},
        devices=2,
    )
    assert run.finish() == 0, run.log()
    assert [kind for kind in run.kinds() if kind != "efficiency"][-2:] == ["summary", "data_reported"]
    check = read_report(run).label_check
    assert check is not None
    assert check.images == 63
