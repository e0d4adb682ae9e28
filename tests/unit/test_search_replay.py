"""The replay of searches over recorded trainings counts what it says it counts."""

from __future__ import annotations

import math

import pytest

from benchmarks.search.courses import FRACTIONS, Table, between
from benchmarks.search.pool import Work, replay
from benchmarks.search.replay import ours

GRID = {"training.optimizer.learning_rate": [1e-3, 1e-2], "training.optimizer.name": ["adamw", "sgd"]}
IMAGES = 1000


def table(ends: dict[tuple[int, int], float]) -> Table:
    """Trainings whose accuracy rises in a line; 0.1 at once where `ends` says nothing."""
    trainings = []
    for choice in ((rate, name) for rate in range(2) for name in range(2)):
        accuracy = [ends.get(choice, 0.1) * fraction for fraction in FRACTIONS]
        loss = [1 - one for one in accuracy]
        parts = {"part_accuracy": accuracy, "part_loss": loss}
        numbers = {"steps": 100, "images": IMAGES, "cpu_seconds": 1.0}
        trainings.append({"choice": choice, **numbers, "accuracy": accuracy, "loss": loss, **parts})
    return Table({"grid": GRID, "images": {"validation": 2000}, "trainings": trainings})


class Listed:
    """Carries out what it is given, in this order."""

    def __init__(self, *work: Work) -> None:
        self._work = list(work)

    def next(self) -> Work | None:
        return self._work.pop(0) if self._work else None

    def done(self, work: Work) -> None:
        pass


def whole(trial: int, choice: tuple[int, int]) -> Work:
    return Work(trial, choice, 0.0, 1.0)


def test_all_that_the_workers_have_trained_counts_up_to_the_moment_at_which_the_best_is_there() -> None:
    trainings = table({(1, 1): 0.9})
    behind_one = replay(trainings, Listed(whole(0, (0, 0)), whole(1, (1, 1))), workers=1)
    beside_one = replay(trainings, Listed(whole(0, (0, 0)), whole(1, (1, 1))), workers=2)
    assert behind_one.images == pytest.approx(2 * IMAGES)
    assert beside_one.images == pytest.approx(2 * IMAGES)
    first = replay(trainings, Listed(whole(0, (1, 1)), whole(1, (0, 0))), workers=1)
    assert first.images == pytest.approx(IMAGES)
    assert first.steps == pytest.approx(100)


def test_what_was_trained_before_costs_nothing_again() -> None:
    again = Listed(Work(0, (0, 0), 0.0, 0.5), whole(1, (0, 0)), whole(2, (0, 0)), whole(3, (1, 1)))
    assert replay(table({(1, 1): 0.9}), again, workers=1).images == pytest.approx(2 * IMAGES)


def test_a_search_that_never_finds_it_says_so() -> None:
    found = replay(table({(1, 1): 0.9}), Listed(whole(0, (0, 0)), whole(1, (0, 1))))
    assert found.images == math.inf
    assert found.best == pytest.approx(0.1)
    assert found.spent == pytest.approx(2 * IMAGES)


def test_a_value_between_two_recorded_ones_lies_on_a_line_in_the_logarithm() -> None:
    values = [math.log(fraction) for fraction in FRACTIONS]
    assert between(values, 1 / 120) == pytest.approx(math.log(1 / 120))
    assert between(values, 1.0) == 0.0
    assert between(values, 1 / 1000) == values[0]


def test_the_services_own_decisions_find_the_best_of_a_small_grid_and_give_the_rest_up() -> None:
    found = ours(table({(1, 1): 0.9, (0, 1): 0.5}), seed=0, pruner={"name": "halving", "first_rung": 0.125}, trials=4)
    assert found.best == pytest.approx(0.9)
    assert found.trials == 4
    assert found.images < 2 * IMAGES
