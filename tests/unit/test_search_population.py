"""Population-based training: who goes on from whom, with which parameters, and that it ends."""

from __future__ import annotations

import math
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.book.status import Status
from api.search.ladder import strategy_of
from api.search.mutation import changed, multiplied
from api.search.view import Adopt, Promote, Prune, StudyView, TrialView
from tests.unit.search_simulation import SPACE, Chances, Played, check_moves, make_search, make_trial
from training_core.contract.errors import Reason
from training_core.contract.spec import FloatParameter, IntParameter, Population, Search
from training_core.contract.spec.points import canonical

RATE, NAME = "training.optimizer.learning_rate", "training.optimizer.name"
populations = st.fixed_dictionaries({
    "size": st.integers(2, 10), "generations": st.integers(2, 10), "quantile": st.sampled_from([0.1, 0.25, 0.5]),
    "resample": st.sampled_from([0, 0.25, 1]),
})  # fmt: skip


@settings(deadline=None, max_examples=40)
@given(populations, st.integers(1, 8), st.integers(0, 10**6), st.booleans())
def test_any_population_comes_to_its_end(population: dict[str, object], workers: int, seed: int, trouble: bool) -> None:
    chances = Chances(fail=0.1, lose=0.2, late=0.2, void=0.1, stop_early=0.02) if trouble else Chances()
    played = Played(make_search(population=population), seed, workers, chances).play()
    check_moves(played)
    assert len(played.trials) == population["size"]
    assert trouble or all(one.status == Status.SUCCEEDED for one in played.trials)
    for view, moves in played.passes:
        for move in moves:
            if isinstance(move, Adopt):
                _check_adoption(view, move)


def _check_adoption(view: StudyView, move: Adopt) -> None:
    member, source = view.trials[move.trial], view.trials[move.source]
    assert source.checkpoint is not None
    assert source.open
    assert max(source.at_rungs) >= (member.rung or 0), "nobody goes back"
    newest = max(rung for rung in source.at_rungs if rung <= (member.rung or 0))
    score = view.score(member.at_rungs.get(member.rung or 0))
    assert math.isnan(score) or view.score(source.at_rungs[newest]) >= score
    assert canonical(view.search.space, move.parameters) == move.parameters


def test_the_worst_of_four_goes_on_from_the_best() -> None:
    search, trials = _four()
    moves = strategy_of(search).moves(StudyView(search, trials))
    assert [(type(move), move.trial, move.rung, move.until) for move in moves if not isinstance(move, Prune)] == [
        (Promote, 0, 1, 0.5), (Promote, 1, 1, 0.5), (Adopt, 2, 1, 0.5), (Promote, 3, 1, 0.5),
    ]  # fmt: skip
    adopted = moves[2]
    assert isinstance(adopted, Adopt)
    assert adopted.source == 1
    assert adopted.parameters[RATE] in (pytest.approx(0.08), pytest.approx(0.125))
    assert adopted.parameters[NAME] == "sgd", "choices stay where nothing is drawn anew"
    assert adopted.why.startswith(
        "generation 1 of 4: validation/accuracy 0.2 is rank 4 of 4; it goes on from trial 1, which has 0.9, with "
        "training.epochs 5 -> "
    )


def test_nobody_goes_on_before_all_have_begun() -> None:
    search, trials = _four()
    assert strategy_of(search).moves(StudyView(search, trials[:3])) == []
    assert strategy_of(search).moves(StudyView(search, trials[:3], closed=True)) != []


def test_nobody_runs_two_generations_ahead() -> None:
    search, trials = _four()
    ahead = make_trial(0, rung=2, score={0: 0.5, 1: 0.5, 2: 0.6}, parameters={}, reached=0.75)
    moves = strategy_of(search).moves(StudyView(search, [ahead, *trials[1:]]))
    assert [move.trial for move in moves] == [1, 2, 3]


def test_the_worst_waits_for_a_better_one_that_is_behind() -> None:
    """A member without a value cannot go on by itself; the best one is on its way to the same generation."""
    search, trials = _four()
    void = make_trial(2, rung=1, score={0: 0.2}, parameters={}, reached=0.5)
    moves = strategy_of(search).moves(StudyView(search, [trials[0], trials[1], void, trials[3]]))
    assert [move.trial for move in moves] == [0, 1, 3]
    failed = [make_trial(n, rung=1, score={0: 0.5}, status=Status.FAILED, reason=Reason.NAN_LOSS) for n in (0, 1, 3)]
    moves = strategy_of(search).moves(StudyView(search, [failed[0], failed[1], void, failed[2]]))
    assert [(type(move), move.trial) for move in moves] == [(Prune, 2)]


def test_changes_stay_within_bounds_and_on_steps() -> None:
    assert multiplied(FloatParameter(type="float", low=0.1, high=1.0), 0.9, 1.25) == 1.0
    assert multiplied(FloatParameter(type="float", low=0.1, high=1.0, step=0.1), 0.3, 0.8) == 0.2
    assert multiplied(IntParameter(type="int", low=1, high=9), 2, 1.25) == 3
    assert multiplied(IntParameter(type="int", low=1, high=9), 1, 0.8) == 1
    assert multiplied(IntParameter(type="int", low=16, high=64, step=16), 32, 1.25) == 48


@given(st.integers(0, 10**6), st.floats(0, 1))
def test_what_a_condition_rules_out_is_left_out_and_drawn_when_it_holds_again(seed: int, resample: float) -> None:
    momentum = {"type": "float", "low": 0.0, "high": 0.99, "when": {NAME: ["sgd"]}}
    search = make_search(space={**SPACE, "training.optimizer.momentum": momentum})
    before = {
        RATE: 0.01,
        NAME: "adamw",
        "training.epochs": 3,
        "training.optimizer.weight_decay": 0.0,
        "training.seed": 7,
    }
    after = changed(search.space, before, Population(resample=resample), Random(seed))
    assert ("training.optimizer.momentum" in after) == (after[NAME] == "sgd")
    assert after["training.seed"] == 7
    assert canonical(search.space, after) == after


def _four() -> tuple[Search, list[TrialView]]:
    search = make_search(population={"size": 4, "generations": 4, "resample": 0})
    parameters = {RATE: 0.1, NAME: "sgd", "training.epochs": 5, "training.optimizer.weight_decay": 0.01}
    scores = (0.5, 0.9, 0.2, 0.6)
    return search, [
        make_trial(number, rung=0, score={0: score}, parameters=parameters, reached=0.25)
        for number, score in enumerate(scores)
    ]
