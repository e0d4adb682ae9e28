"""Hyperband by Optuna's own pruner: the same answers as when Optuna is asked during the trainings."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.book.status import Status
from api.search.hyperband import Hyperband
from api.search.view import Promote, Prune, StudyView, TrialView
from tests.unit.search_simulation import METRIC, Chances, Played, check_moves, make_search
from training_core.contract.errors import Reason


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 25), st.integers(2, 5), st.integers(1, 8), st.integers(0, 10**6), st.booleans())
def test_any_search_ends_with_sensible_moves(trials: int, factor: int, workers: int, seed: int, trouble: bool) -> None:
    chances = Chances(fail=0.2, lose=0.2, late=0.2, void=0.1, stop_early=0.1) if trouble else Chances()
    search = make_search(trials=trials, pruner={"name": "hyperband", "reduction_factor": factor})
    played = Played(search, seed, workers, chances).play()
    check_moves(played)
    assert trouble or played.view.best() is not None


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_what_optuna_decides_in_a_running_study_is_decided_here(factor: int) -> None:
    """One trial after the other, each asked about at each rung, in Optuna's way and out of the view."""
    search = make_search(trials=40, seed=3, pruner={"name": "hyperband", "reduction_factor": factor})
    rules = Hyperband(search)
    pruner = optuna.pruners.HyperbandPruner(1, rules.whole, factor)
    study = optuna.create_study(study_name=rules.name, direction="maximize", pruner=pruner)
    dice, trials, pruned = Random(1), [], 0
    for number in range(40):
        asked, worth = study.ask(), dice.random()
        view = TrialView(number, Status.PAUSED, Reason.RUNG_REACHED, {}, rung=0)
        for rung in range(len(rules.rungs) - 1):
            value = worth + dice.gauss(0, 0.3)
            asked.report(value, factor**rung)
            at_rungs = {**view.at_rungs, rung: {METRIC: value}}
            view = replace(view, rung=rung, reached=rules.rungs[rung], at_rungs=at_rungs)
            (move,) = rules.moves(StudyView(search, [*trials, view]))
            assert isinstance(move, Prune) == asked.should_prune(), (number, rung)
            if isinstance(move, Prune):
                view = replace(view, status=Status.PRUNED, reason=Reason.PRUNED)
                pruned += 1
                break
            assert isinstance(move, Promote)
            view = replace(view, rung=move.rung)
        else:
            view = replace(view, status=Status.SUCCEEDED, reason=Reason.COMPLETED)
        trials.append(view)
    assert 10 < pruned < 40
