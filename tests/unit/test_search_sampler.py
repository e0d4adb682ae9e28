"""Samplers asked from views of a search: what they learn from, what they never do twice, and that a seed fixes them."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from api.book.status import Status
from api.search.optuna_study import remember
from api.search.sampler import STARTUP, Asking, ask, sampler_name
from api.search.space import key
from api.search.view import Start, StudyView, TrialView
from training_core.contract.errors import Reason
from training_core.contract.spec import JobSpec, Search

METRIC = "validation/accuracy"
RATE, DECAY, BATCH = "training.optimizer.learning_rate", "training.optimizer.weight_decay", "training.batch_size"
NUMBERS: dict[str, Any] = {
    RATE: {"type": "float", "low": 1e-4, "high": 1.0, "log": True},
    DECAY: {"type": "float", "low": 0.0, "high": 0.1},
    BATCH: {"type": "int", "low": 32, "high": 256, "step": 32},
}
MIXED = {
    **NUMBERS,
    "training.optimizer.name": {"type": "categorical", "choices": ["sgd", "adamw"]},
    "training.optimizer.momentum": {
        "type": "float", "low": 0.5, "high": 0.95, "when": {"training.optimizer.name": ["sgd"]}
    },
}  # fmt: skip
SMALL = {
    "training.optimizer.name": {"type": "categorical", "choices": ["sgd", "adamw"]},
    BATCH: {"type": "int", "low": 32, "high": 96, "step": 32},
}


def search_of(space: dict[str, Any] = MIXED, **given: Any) -> Search:
    return Search.model_validate({"space": space, **given})


def value_of(parameters: Any) -> float:
    """Best at a rate of 0.01 and a batch of 128."""
    return (
        0.9
        - abs(math.log10(float(parameters.get(RATE, 0.01))) + 2) / 10
        - abs(int(parameters.get(BATCH, 128)) - 128) / 2000
    )


def trial_of(number: int, start: Start, **given: Any) -> TrialView:
    done = {"status": Status.SUCCEEDED, "reason": Reason.COMPLETED, "values": {METRIC: value_of(start.parameters)}}
    sampler = dict(start.sampler)
    return TrialView(
        number, **{**done, "parameters": start.parameters, "origin": start.origin, "sampler": sampler, **given}
    )


def played(search: Search, count: int, **given: Any) -> list[TrialView]:
    """One trial after the other, each asked from a view that is built afresh, until the space is used up."""
    trials: list[TrialView] = []
    for number in range(count):
        start = ask(StudyView(search, tuple(trials)))
        if start is None:
            break
        trials.append(trial_of(number, start, **given))
    return trials


@pytest.mark.parametrize("sampler", ["auto", "random", "tpe"])
def test_no_point_is_given_twice_and_a_seed_fixes_all(sampler: str) -> None:
    search = search_of(sampler=sampler, seed=7, pruner="none")
    trials = played(search, 30)
    assert len({key(search.space, one.parameters) for one in trials}) == 30
    assert [one.parameters for one in played(search, 30)] == [one.parameters for one in trials]
    other = played(search_of(sampler=sampler, seed=8, pruner="none"), 3)
    assert all(one.parameters != two.parameters for one, two in zip(other, trials, strict=False))
    assert (
        [one.origin for one in trials] == ["random"] * 30
        if sampler == "random"
        else (["random"] * STARTUP + ["tpe"] * (30 - STARTUP))
    )


def test_where_short_trainings_decide_every_other_trial_is_left_to_chance() -> None:
    origins = [one.origin for one in played(search_of(pruner="halving"), STARTUP + 8)]
    assert sorted(origins[STARTUP:]) == ["random"] * 4 + ["tpe"] * 4


def test_conditions_hold_in_every_trial() -> None:
    for one in played(search_of(), 30):
        assert ("training.optimizer.momentum" in one.parameters) == (one.parameters["training.optimizer.name"] == "sgd")


@pytest.mark.parametrize("sampler", ["tpe", "cma_es", "nsga2"])
def test_samplers_that_learn_are_better_in_the_end_than_at_the_beginning(sampler: str) -> None:
    """The median of the last 20 of 80 trials; evolution goes on from what lies with the trials alone."""
    scores = [value_of(one.parameters) for one in played(search_of(NUMBERS, sampler=sampler, trials=80), 80)]
    assert sorted(scores[-20:])[10] > sorted(scores[:20])[10] + 0.03


def test_cma_es_and_nsga_2_live_on_in_what_lies_with_the_trials() -> None:
    for sampler, noted in (("cma_es", "cmawm:generation"), ("nsga2", "NSGAIISampler:generation")):
        search = search_of(NUMBERS, sampler=sampler, trials=60)
        trials = played(search, 30)
        assert any(name.startswith(noted) for one in trials for name in one.sampler)
        forgotten = tuple(replace(one, sampler={}) for one in trials)
        remembered, forgot = ask(StudyView(search, tuple(trials))), ask(StudyView(search, forgotten))
        assert remembered is not None
        assert forgot is not None
        assert remembered.parameters != forgot.parameters


@pytest.mark.parametrize("sampler", ["grid", "random", "tpe"])
def test_a_finite_space_is_used_up_and_says_so(sampler: str) -> None:
    search = search_of(SMALL, sampler=sampler)
    trials = played(search, 50, values={METRIC: 0.5})
    assert len({key(search.space, one.parameters) for one in trials}) == len(trials) == 6
    assert ask(StudyView(search, trials)) is None


def test_a_space_that_is_nearly_used_up_gives_its_last_point() -> None:
    """However rarely it is drawn: 59 of 60 points, all but one of them under a condition, are known."""
    space = {
        "training.optimizer.name": {"type": "categorical", "choices": ["sgd", "adamw"]},
        "training.schedule.patience": {
            "type": "int", "low": 1, "high": 59, "when": {"training.optimizer.name": ["sgd"]}
        },
    }  # fmt: skip
    search = search_of(space)
    known = played(search, 59, values={METRIC: 0.5})
    last = ask(StudyView(search, known))
    assert last is not None
    assert len({key(search.space, one.parameters) for one in [*known, trial_of(59, last, values={})]}) == 60
    assert ask(StudyView(search, [*known, trial_of(59, last, values={METRIC: 0.1})])) is None


def test_points_come_first_and_what_they_leave_open_is_drawn() -> None:
    points = [{RATE: 0.5}, {RATE: 0.5, DECAY: 0.0, BATCH: 64}, {RATE: 0.5, DECAY: 0, BATCH: 64.0}, {}]
    trials = played(search_of(NUMBERS, points=points), 5)
    assert [one.origin for one in trials] == ["point", "point", "point", "random", "random"]
    assert [one.parameters[RATE] for one in trials[:2]] == [0.5, 0.5]
    assert trials[1].parameters == {BATCH: 64, DECAY: 0.0, RATE: 0.5}
    assert set(trials[0].parameters) == set(NUMBERS)
    assert [one.sampler["point"] for one in trials[:3]] == [0, 1, 3]  # the third is the second once more


def test_what_an_earlier_search_trained_is_known_and_not_trained_again() -> None:
    search = search_of(SMALL)
    first = played(search, 4, values={METRIC: 0.5})
    earlier = tuple(replace(one, job_id="job_1") for one in first)
    later: list[TrialView] = []
    while (start := ask(StudyView(search, tuple(later), earlier))) is not None:
        later.append(trial_of(len(later), start, values={METRIC: 0.1}))
    assert len(later) == 2
    assert not {key(search.space, one.parameters) for one in later} & {
        key(search.space, one.parameters) for one in first
    }
    wide = search_of(NUMBERS, pruner="none")
    known = tuple(replace(one, job_id="job_1") for one in played(wide, 12))
    start = ask(StudyView(wide, (), known))
    assert start is not None
    assert start.origin == "tpe"  # it has learnt enough to begin with


def test_failed_trials_and_those_without_a_number_teach_nothing() -> None:
    search = search_of(NUMBERS)
    trials = played(search, 12)
    bad = [
        replace(trials[0], status=Status.FAILED, reason=Reason.NAN_LOSS, values=None, at_rungs={0: {METRIC: 0.1}}),
        replace(trials[1], values={METRIC: math.nan}),
        replace(trials[2], status=Status.PRUNED, values=None, at_rungs={0: {METRIC: 0.3}, 1: {METRIC: math.nan}}),
        replace(trials[3], status=Status.CANCELLED, values=None),
        replace(trials[4], origin="retrain"),
    ]
    memory = remember(StudyView(search, [*bad, *trials[5:]]))
    assert memory.learned_from == len(memory.study.get_trials()) == 7
    states = [
        replace(trials[0], status=Status.PAUSED, reason=Reason.RUNG_REACHED, values=None, at_rungs={0: {METRIC: 0.2}}),
        replace(trials[1], status=Status.QUEUED, reason=Reason.PROMOTED, values=None, at_rungs={0: {METRIC: 0.2}}),
        replace(trials[2], status=Status.RUNNING, reason=Reason.TRAINING, values=None),
        replace(trials[3], status=Status.QUEUED, reason=Reason.SUBMITTED, values=None),
        trials[4],
    ]
    found = [one.state.name for one in remember(StudyView(search, states)).study.get_trials()]
    assert found == ["PRUNED", "PRUNED", "RUNNING", "RUNNING", "COMPLETE"]


def test_trials_asked_together_keep_apart() -> None:
    """Where 20 trials say clearly where it is good, eight under way do not all go to the one best place."""
    search = search_of(NUMBERS)
    asking = Asking(StudyView(search, played(search, 20)))
    starts = [asking.next() for _ in range(8)]
    rates = [math.log10(float(start.parameters[RATE] or 0)) for start in starts if start is not None]
    assert len(set(rates)) == 8
    assert max(rates) - min(rates) > 0.1


def test_several_objectives_are_for_nsga_2_where_there_is_no_condition() -> None:
    objectives = [{"metric": METRIC}, {"metric": "device_seconds"}]
    assert sampler_name(search_of(NUMBERS, objective=objectives)) == "nsga2"
    assert sampler_name(search_of(MIXED, objective=objectives)) == "tpe"
    for space in (NUMBERS, MIXED):
        search = search_of(space, objective=objectives, trials=40)
        trials: list[TrialView] = []
        for number in range(24):
            start = ask(StudyView(search, tuple(trials)))
            assert start is not None
            values = {METRIC: value_of(start.parameters), "device_seconds": float(start.parameters[BATCH] or 0)}
            trials.append(trial_of(number, start, values=values))


def test_points_that_make_no_spec_are_passed_over() -> None:
    space = {
        "model.pretrained": {"type": "categorical", "choices": [False, True]},
        "model.trainable": {"type": "categorical", "choices": ["all", "head"]},
    }
    document = {"task": "image-classification", "dataset": {"uri": "file:///d/"}, "search": {"space": space}}
    spec = JobSpec.model_validate(document)
    assert spec.search is not None
    trials: list[TrialView] = []
    while (start := ask(StudyView(spec.search, tuple(trials), spec=spec))) is not None:
        trials.append(trial_of(len(trials), start, values={METRIC: 0.5}))
    assert len(trials) == 3
    assert {"model.pretrained": False, "model.trainable": "head"} not in [one.parameters for one in trials]
