"""Importance beside Optuna's own evaluation of a study that holds the same trials."""

from __future__ import annotations

import random
from typing import Any

import optuna
import pytest
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.trial import TrialState, create_trial

from api.search.columns import AtRungs, Columns
from api.search.importance import importance, points_of
from api.search.space import distributions, encode
from training_core.contract.spec import Search

ACCURACY, RATE, MOMENTUM, NAME = (
    "validation/accuracy", "training.optimizer.learning_rate", "training.optimizer.momentum", "training.optimizer.name",
)  # fmt: skip
SPACE: dict[str, Any] = {
    RATE: {"type": "float", "low": 1e-4, "high": 1.0, "log": True},
    NAME: {"type": "categorical", "choices": ["sgd", "adam", "adamw"]},
    MOMENTUM: {"type": "float", "low": 0.0, "high": 0.9, "step": 0.1, "when": {NAME: ["sgd"]}},
    "training.batch_size": {"type": "int", "low": 16, "high": 512, "log": True},
}
SEARCH = Search.model_validate({"space": SPACE})
NO_RUNGS = AtRungs([], [], [])


def points(count: int) -> list[dict[str, Any]]:
    dice = random.Random(0)
    found = []
    for _ in range(count):
        name = dice.choice(["sgd", "adam", "adamw"])
        point = {RATE: 10 ** dice.uniform(-4, 0), NAME: name, "training.batch_size": dice.randint(16, 512)}
        found.append({**point, MOMENTUM: dice.randint(0, 9) / 10} if name == "sgd" else point)
    return found


def columns(found: list[dict[str, Any]], values: list[float | None]) -> Columns:
    size = len(found)
    parameters = {name: [point.get(name) for point in found] for name in SPACE}
    return Columns(range(size), ["succeeded"] * size, [1.0] * size, [0.0] * size, parameters, {ACCURACY: values})


def test_it_is_what_optuna_says_of_a_study_with_conditional_parameters() -> None:
    found = points(200)
    values = [-abs(point[RATE] - 0.1) - (0.2 if point[NAME] == "adam" else 0) for point in found]
    study, space = optuna.create_study(direction="maximize"), distributions(SEARCH.space)
    for point, value in zip(found, values, strict=True):
        own = encode(SEARCH.space, point)
        kinds = {name: space[name] for name in own}
        study.add_trial(create_trial(state=TrialState.COMPLETE, value=value, params=own, distributions=kinds))
    expected = optuna.importance.get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())
    trials = columns(found, list(values))
    ours = importance(SEARCH, SEARCH.objectives[0], trials, NO_RUNGS, points_of(SEARCH, trials))
    assert (ours.trials, ours.finished, ours.reason) == (200, 200, None)
    assert ours.parameters == pytest.approx(expected)
    assert next(iter(ours.parameters)) == RATE


def test_a_trial_that_came_further_is_before_one_that_was_better_earlier() -> None:
    """The rate decides who comes to the second rung; within a rung the values say the contrary."""
    found = points(100)
    further = [point[RATE] > 0.1 for point in found]
    fractions = [0.5 if far else 0.1 for far in further]
    trials = columns(found, [None] * 100)
    rungs = AtRungs(range(100), fractions, [0.1 if far else 0.9 for far in further])
    ours = importance(SEARCH, SEARCH.objectives[0], trials, rungs, points_of(SEARCH, trials))
    assert (ours.trials, ours.finished) == (100, 0)
    assert next(iter(ours.parameters)) == RATE
    assert ours.parameters[RATE] > 0.8


def test_where_nothing_can_be_said_the_reason_is() -> None:
    found = points(30)
    few, same = columns(found[:19], [0.1] * 19), columns(found, [0.5] * 30)
    nan = AtRungs(range(30), [0.1] * 30, ["NaN"] * 30)
    for trials, rungs, word in (
        (few, NO_RUNGS, "at least 20"),
        (same, NO_RUNGS, "same"),
        (columns(found, [None] * 30), nan, "0 trials"),
    ):
        ours = importance(SEARCH, SEARCH.objectives[0], trials, rungs, points_of(SEARCH, trials))
        assert ours.parameters == {}
        assert word in (ours.reason or "")
