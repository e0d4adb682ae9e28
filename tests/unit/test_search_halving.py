"""Asynchronous successive halving: what goes on, what is given up, what it costs, and that it ends."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.book.status import Status
from api.search.ladder import strategy_of
from api.search.rungs import COST, LEAST, MOST, absent_trials, cost, ladder_for, went_on
from api.search.view import Promote, Prune, StudyView, TrialView
from tests.unit.search_simulation import METRIC, Chances, Played, check_moves, make_search, make_trial
from training_core.contract.errors import Reason
from training_core.contract.spec import Search

chances = st.builds(
    Chances, fail=st.sampled_from([0, 0, 0.2, 0.9]), lose=st.sampled_from([0, 0.3]), late=st.sampled_from([0, 0.3]),
    void=st.sampled_from([0, 0, 0.2, 1]), stop_early=st.sampled_from([0, 0, 0.1]),
)  # fmt: skip
pruners = st.builds(
    lambda first, factor: {"name": "halving", "first_rung": first, "reduction_factor": factor},
    first=st.sampled_from(["auto", 0.01, 0.1, 0.5, 0.9]), factor=st.sampled_from([2, 3, 4, 7]),
)  # fmt: skip

counts = st.tuples(st.integers(1, 60), st.sampled_from([0, 0, 7, 900]))  # trials, and those absent


@settings(deadline=None, max_examples=60)
@given(counts, pruners, st.integers(1, 8), chances, st.integers(0, 10**6))
def test_any_search_ends_with_sensible_moves(
    counts: tuple[int, int], pruner: dict[str, object], workers: int, chances: Chances, seed: int
) -> None:
    trials, absent = counts
    played = Played(make_search(trials=trials, pruner=pruner), seed, workers, chances, absent=absent).play()
    check_moves(played)
    for view, moves in played.passes:
        _check_counts(view, moves, played.search.pruner.reduction_factor)
    _check_pruned(played)
    if not chances.fail and not chances.void:
        assert played.view.best() is not None, "no whole training came out"


def _check_counts(view: StudyView, moves: object, factor: int) -> None:
    """With the moves carried out, no more than one in `factor` has gone on from any rung."""
    assert isinstance(moves, list)
    final = view.to_come == 0 and (view.absent or not any(one.busy for one in view.trials))
    if final:
        return
    up = {move.trial: move for move in moves if isinstance(move, Promote)}
    for rung in {rung for one in view.trials for rung in one.at_rungs}:
        there = [one for one in view.trials if rung in one.at_rungs]
        before = sum(went_on(one, rung) for one in there)
        now = sum(one.number in up and one.rung == rung for one in there)
        assert now == 0 or before + now <= len(there) // factor


def _check_pruned(played: Played) -> None:
    """With all reports there, none of the pruned would have been next to go on."""
    factor = played.search.pruner.reduction_factor
    trials = played.view.trials
    for rung in {rung for one in trials for rung in one.at_rungs}:
        there = [one for one in trials if rung in one.at_rungs]
        ranked = sorted(there, key=lambda one: _key(one, rung))
        slots = len(there) // factor
        if sum(went_on(one, rung) for one in there) < slots:
            candidates = [one for one in ranked[:slots] if one.status == Status.PRUNED and one.rung == rung]
            assert all(math.isnan(_value(one, rung)) for one in candidates), "it could have gone on"


def _key(trial: TrialView, rung: int) -> tuple[bool, float, int]:
    value = _value(trial, rung)
    return math.isnan(value), 0 if math.isnan(value) else -value, trial.number


def _value(trial: TrialView, rung: int) -> float:
    return trial.at_rungs[rung].get(METRIC, math.nan)


@pytest.mark.parametrize("trials", [10, 20, 50, 100, 150])
def test_all_trials_together_cost_what_is_promised(trials: int) -> None:
    spent = [Played(make_search(trials=trials), seed, workers).play().spent for seed, workers in enumerate((1, 2, 4))]
    assert all(0.6 * COST < cost < 1.2 * COST for cost in spent), spent


@pytest.mark.parametrize(("there", "wanted"), [(40, 1000), (100, 400), (216, 1000)])
def test_a_space_that_is_used_up_early_is_searched_on_for_what_the_absent_would_have_cost(
    there: int, wanted: int
) -> None:
    search = make_search(trials=there)
    factor = search.pruner.reduction_factor
    absent = absent_trials(there, wanted, factor)
    before, after = (Played(search, 1, 4, absent=count).play() for count in (0, absent))
    allowed = cost(ladder_for(wanted, factor), wanted, factor)
    assert before.spent < after.spent <= 1.2 * allowed
    best = [played.view.best() for played in (before, after)]
    assert best[0] is not None
    assert best[1] is not None
    assert best[1].values is not None
    assert best[1].values[METRIC] >= (best[0].values or {})[METRIC]


def test_it_goes_on_from_the_first_rung_with_the_best_and_in_rounds() -> None:
    search = make_search(trials=20, pruner={"name": "halving", "first_rung": 0.1, "reduction_factor": 4})
    done = [make_trial(n, rung=None, score={0: 1 - n / 100, 1: 0.9}, status=Status.SUCCEEDED) for n in range(2)]
    done = [replace(one, values={METRIC: 0.9}, reached=1.0) for one in done]
    further = [make_trial(n, rung=1, score={0: 1 - n / 100, 1: 0.5}, reached=0.4) for n in range(2, 5)]
    waiting = [make_trial(n, rung=0, score={0: 1 - n / 100}, reached=0.1) for n in range(5, 20)]
    view = StudyView(search, [*done, *further, *waiting], absent=60)
    moves = strategy_of(search).moves(view)
    assert [(move.trial, move.rung) for move in moves if isinstance(move, Promote)] == [(n, 1) for n in range(5, 10)]
    none_absent = strategy_of(search).moves(replace(view, absent=0))
    assert {type(move) for move in none_absent} == {Prune}


@pytest.mark.parametrize(("there", "wanted"), [(50, 50), (100, 200), (24, 100)])
def test_as_many_trials_as_cost_no_more_are_not_missed(there: int, wanted: int) -> None:
    count = there + (absent := absent_trials(there, wanted, 5))
    assert not absent or cost(ladder_for(there, 5), count, 5) <= cost(ladder_for(wanted, 5), wanted, 5) + 1e-6


def test_a_space_of_which_every_point_is_known_has_nobody_to_go_on() -> None:
    assert absent_trials(0, 100, 5) == 0
    empty = StudyView(make_search(trials=1, finish="none").model_copy(update={"trials": 0}), [])
    assert strategy_of(empty.search).moves(empty) == []


@given(st.integers(1, 100_000), st.integers(2, 16))
def test_a_ladder_rises_to_a_whole_training(trials: int, factor: int) -> None:
    ladder = ladder_for(trials, factor)
    assert LEAST * 0.999 <= ladder[0] <= MOST
    assert ladder[-1] == 1.0
    assert all(low < high for low, high in pairwise(ladder))
    assert cost(ladder, trials, factor) <= COST or ladder[0] == pytest.approx(LEAST)


def test_the_best_quarter_goes_on_and_who_cannot_follow_is_given_up() -> None:
    """Eight of eight have reported: two go on, three may hope until one has come to its end, the rest is pruned."""
    search = make_search(trials=8, pruner={"name": "halving", "first_rung": 1 / 32, "reduction_factor": 4})
    trials = [make_trial(number, rung=0, score={0: value}) for number, value in enumerate((1, 8, 3, 7, 5, 6, 4, 2))]
    assert [(type(move), move.trial) for move in strategy_of(search).moves(StudyView(search, trials))] == [
        (Promote, 1), (Promote, 3), *((Prune, number) for number in (4, 6, 2, 7, 0)),
    ]  # fmt: skip
    moves = strategy_of(search).moves(StudyView(search, trials))
    assert moves[0] == Promote(
        1, 1, 1 / 8, "rung 0 (3.12 % of the training): validation/accuracy 8 is rank 1 of 8; it goes on"
    )
    assert moves[-1].why == (
        "rung 0 (3.12 % of the training): validation/accuracy 1 is rank 8 of 8; "
        "the best 2 go on, the worst of them has 7"
    )


def test_a_loss_is_better_when_it_is_less() -> None:
    search = make_search(
        trials=4, objective={"metric": "validation/loss"}, pruner={"first_rung": 0.1, "name": "halving"}
    )
    trials = [
        TrialView(
            number, Status.PAUSED, Reason.RUNG_REACHED, {}, rung=0, reached=0.1, at_rungs={0: {"validation/loss": loss}}
        )
        for number, loss in enumerate((2.0, 0.5, 1.0, 3.0))
    ]
    moves = strategy_of(search).moves(StudyView(search, trials))
    assert [move.trial for move in moves if isinstance(move, Promote)] == [1]


def test_nobody_is_given_up_while_trials_to_come_may_lift_it() -> None:
    search = make_search(trials=100, pruner={"name": "halving", "first_rung": 1 / 32, "reduction_factor": 4})
    trials = [make_trial(number, rung=0, score={0: float(number)}) for number in range(8)]
    moves = strategy_of(search).moves(StudyView(search, trials))
    assert [(type(move), move.trial) for move in moves] == [(Promote, 7), (Promote, 6)]


def test_a_closed_search_waits_for_nobody() -> None:
    search = make_search(trials=100, pruner={"name": "halving", "first_rung": 1 / 32, "reduction_factor": 4})
    trials = [make_trial(number, rung=0, score={0: float(number)}) for number in range(3)]
    assert strategy_of(search).moves(StudyView(search, trials)) == []
    moves = strategy_of(search).moves(StudyView(search, trials, closed=True))
    assert [(type(move), move.trial) for move in moves] == [(Promote, 2), (Promote, 1)]


def test_the_next_best_takes_the_place_of_one_that_failed_on_its_way() -> None:
    search = make_search(trials=4, pruner={"name": "halving", "first_rung": 1 / 4})
    trials = [make_trial(number, rung=0, score={0: float(number)}) for number in range(3)]
    failed = make_trial(3, rung=None, score={0: 9.0}, status=Status.FAILED, reason=Reason.NAN_LOSS)
    moves = strategy_of(search).moves(StudyView(search, [*trials, failed]))
    assert [(type(move), move.trial) for move in moves] == [(Promote, 2)]


def test_a_trial_of_an_older_ladder_goes_on_to_the_end() -> None:
    """A rung beyond the ladder, as one has that waited while a new version of the service was installed."""
    search = make_search(trials=1, pruner={"name": "halving", "first_rung": 1 / 4})
    trial = make_trial(0, rung=5, score={5: 0.5}, reached=0.6)
    assert [(move.trial, move.rung) for move in _up(search, [trial])] == [(0, None)]


def _up(search: Search, trials: list[TrialView]) -> list[Promote]:
    return [move for move in strategy_of(search).moves(StudyView(search, trials)) if isinstance(move, Promote)]
