"""The median rule, no rungs at all, and which strategy a search has."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.book.status import Status
from api.search.halving import Halving
from api.search.hyperband import Hyperband
from api.search.ladder import Whole, strategy_of
from api.search.median import EIGHTHS, Median
from api.search.population import PopulationBased
from api.search.view import Promote, Prune, StudyView
from tests.unit.search_simulation import Chances, Played, check_moves, make_search, make_trial
from training_core.contract.errors import Reason


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 40), st.sampled_from(["median", "none"]), st.integers(1, 8), st.integers(0, 10**6), st.booleans())
def test_any_search_ends_with_sensible_moves(trials: int, pruner: str, workers: int, seed: int, trouble: bool) -> None:
    chances = Chances(fail=0.2, lose=0.2, late=0.2, void=0.1, stop_early=0.1) if trouble else Chances()
    played = Played(make_search(trials=trials, pruner=pruner), seed, workers, chances).play()
    check_moves(played)
    assert trouble or played.view.best() is not None


def test_worse_than_the_median_of_five_others_ends() -> None:
    search = make_search(pruner="median")
    others = [
        make_trial(number, rung=3, score={2: value}, status=Status.RUNNING, reason=Reason.TRAINING)
        for number, value in enumerate((0.1, 0.2, 0.5, 0.8, 0.9))
    ]
    below, at = make_trial(5, rung=2, score={2: 0.49}), make_trial(5, rung=2, score={2: 0.5})
    assert _moves(search, [*others, below])[-1] == Prune(
        5,
        "rung 2 (37.5 % of the training): validation/accuracy 0.49 is rank 4 of 6; "
        "it is worse than the median of the 5 others, 0.5",
    )
    assert [(move.trial, move.rung, move.until) for move in _moves(search, [*others, at]) if move.trial == 5] == [
        (5, 3, 0.5)
    ]
    assert isinstance(_moves(search, [*others[1:], below])[-1], Promote), "four others are too few"


def test_at_the_last_eighth_a_trial_goes_on_to_its_end() -> None:
    moves = _moves(make_search(pruner="median"), [make_trial(0, rung=6, score={6: 0.5})])
    assert [(type(move), move.rung, move.until) for move in moves if isinstance(move, Promote)] == [
        (Promote, None, None)
    ]
    assert EIGHTHS[6] == 7 / 8


def test_a_trial_without_a_value_ends() -> None:
    moves = _moves(make_search(pruner="median"), [make_trial(0, rung=1, score={})])
    assert [move.why for move in moves] == [
        "rung 1 (25 % of the training): the trial reported no validation/accuracy that is a number"
    ]


@pytest.mark.parametrize(
    ("given", "strategy"),
    [
        ({}, Halving),
        ({"trials": 4}, Whole),
        ({"trials": 4, "pruner": "halving"}, Halving),
        ({"objective": {"metric": "test/accuracy"}}, Whole),
        ({"objective": [{"metric": "validation/accuracy"}, {"metric": "device_seconds"}]}, Whole),
        ({"pruner": "none"}, Whole),
        ({"pruner": "median"}, Median),
        ({"pruner": "hyperband"}, Hyperband),
        ({"population": {}, "pruner": "median"}, PopulationBased),
    ],
)
def test_the_strategy_of_a_search(given: dict[str, object], strategy: type) -> None:
    assert type(strategy_of(make_search(**given))) is strategy


def _moves(search: object, trials: list[object]) -> list[Promote | Prune]:
    return list(strategy_of(search).moves(StudyView(search, trials)))  # type: ignore[arg-type]
