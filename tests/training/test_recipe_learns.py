"""The default recipe on real pictures: the sample of Fashion-MNIST that the demo trains on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.running import ROOT, Run, make_run

SAMPLE = f"zip://::file://{ROOT}/examples/data/fashion-mnist-sample.zip"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder: Path = tmp_path_factory.mktemp("recipe")
    training = {"epochs": 3, "batch_size": "auto"}
    run = make_run(folder, SAMPLE, model={}, training=training, data_roots=[ROOT / "examples"])
    assert run.finish() == 0, run.log()
    return run


def test_three_epochs_of_auto_know_four_pictures_of_five(run: Run) -> None:
    accuracies = [value for _, value in run.series("validation/accuracy")]
    assert len(accuracies) == 3
    assert accuracies[-1] > 0.8
    assert run.of_kind("summary")[-1].metrics["test/accuracy"] > 0.8


def test_the_plan_says_what_auto_was(run: Run) -> None:
    [plan] = run.of_kind("plan_chosen")
    assert (plan.resolved["model.name"], plan.resolved["training.batch_size"]) == ("small_resnet", 64)
    assert plan.resolved["training.ema_decay"] > 0.9
    assert plan.reasons.keys() >= {"training.optimizer.learning_rate", "training.schedule.name", "training.resizing"}
