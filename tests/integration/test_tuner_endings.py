"""How searches end, against real PostgreSQL: with a result, at a limit, by their client, or without anything."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from sqlalchemy import update

from api.book.models import Attempt
from api.control import tuner
from api.search.view import Move, StudyView
from api.settings import Settings
from tests.integration.conftest import SPEC, Control
from tests.integration.search_book import CLAIMED, RATE, READY, STARTED, finished
from tests.integration.tuning import SMALL, SPACE, Study, good
from training_core.contract.errors import Reason

Begin = Callable[..., Study]


@pytest.fixture
def begin(client: httpx2.Client, control: Control, settings: Settings) -> Begin:
    def study(spec: dict[str, Any] | None = None, **search: Any) -> Study:
        return Study(client, control, settings, search, **(spec or {}))

    return study


def test_when_all_trials_fail_the_job_fails_with_what_they_share(begin: Begin) -> None:
    study = begin(trials=40)
    job = study.play(lambda trial: "the device ran out of memory" if trial.number != 1 else "it was another device")
    assert (job.status, job.reason) == ("failed", "all_trials_failed")
    error = job.error or {}
    assert (error["code"], error["trial"], error["hint"]) == ("all_trials_failed", 0, "smaller batches")
    assert "the device ran out of memory (out_of_memory, trial 0 and" in error["message"]
    assert 5 <= len(study.trials()) <= 12
    assert study.client.get(f"/v1/jobs/{study.id}").json()["status"] == "failed"


def test_a_metric_that_is_never_reported_ends_the_search_with_its_name(begin: Begin) -> None:
    study = begin(trials=30, objective={"metric": "test/accuracy"})
    job = study.play()
    assert (job.status, job.reason) == ("failed", "all_trials_failed")
    assert "The training reported no test/accuracy; it reported" in (job.error or {})["message"]


@pytest.mark.parametrize("pruner", ["none", "halving"])
def test_values_that_are_no_numbers_are_no_result(begin: Begin, pruner: str) -> None:
    study = begin(trials=5, pruner=pruner)
    job = study.play(lambda _: math.nan)
    assert (job.status, job.reason) == ("failed", "all_trials_failed")


@pytest.mark.parametrize("pruner", ["none", "halving"])
def test_a_value_that_is_no_number_is_never_the_best(begin: Begin, pruner: str) -> None:
    mixed = begin(trials=6, pruner=pruner)
    job = mixed.play(lambda trial: math.nan if trial.number % 2 else good(trial))
    assert job.status == "succeeded"
    assert (job.study or {})["best"]["trial"] % 2 == 0


def test_six_points_end_a_search_of_fifty_trials(begin: Begin) -> None:
    study = begin(space=SMALL, trials=50)
    job = study.play()
    assert (job.status, len(study.trials()), len(set(study.points()))) == ("succeeded", 6, 6)


def test_a_cancel_in_the_middle_ends_it_and_leaves_it_readable(begin: Begin) -> None:
    study = begin(trials=20, pruner="none")
    study.turn()
    study.turn()
    study.tune()
    held = study.open()
    study.control.report(held[0], CLAIMED, STARTED)
    count = len(study.trials())
    assert study.client.post(f"/v1/jobs/{study.id}/cancel").status_code == 202
    study.tune()
    assert len(study.trials()) == count
    for attempt in held:
        study.control.report(attempt, finished(Reason.CANCELLED_BY_CLIENT, 3))
    study.tune()
    job = study.job()
    assert (job.status, job.finished_at is not None) == ("cancelled", True)
    assert not [one for one in study.trials() if one.finished_at is None]
    assert (job.study or {})["best"]["trial"] in [one.number for one in study.trials() if one.values]


def test_a_paused_search_goes_on_when_it_is_resumed(begin: Begin) -> None:
    study = begin(trials=8)
    study.turn()
    study.client.post(f"/v1/jobs/{study.id}/pause")
    before = study.points()
    study.tune()
    assert (study.job().status, study.points()) == ("paused", before)
    study.client.post(f"/v1/jobs/{study.id}/resume")
    assert study.play().status == "succeeded"
    assert len(study.trials()) == 8


def test_a_budget_smaller_than_one_trial_fails_and_says_how_to_go_on(begin: Begin) -> None:
    study = begin({"budget": {"max_device_hours": 0.01}}, trials=8)
    study.tune()
    [attempt] = study.open()
    with study.control.sessions.begin() as session:
        session.execute(update(Attempt).values(booked_at=Attempt.booked_at - timedelta(minutes=5)))
    study.control.report(attempt, CLAIMED, READY, STARTED)
    study.control.report(attempt, finished(Reason.BUDGET_EXHAUSTED, 36))
    study.tune()
    job = study.job()
    assert (job.status, job.reason) == ("failed", "budget_exhausted")
    assert "no trial has a value" in (job.error or {})["message"]
    assert "warm_start" in (job.error or {})["hint"]


def test_a_budget_that_is_used_up_ends_the_search_with_the_best_so_far(begin: Begin) -> None:
    study = begin({"budget": {"max_device_hours": 0.02}}, trials=50, pruner="none")
    job = study.play()  # a whole training holds its device for 40 of the 72 seconds
    assert (job.status, job.reason, job.error) == ("succeeded", "limit_reached", None)
    assert 1 <= len([one for one in study.trials() if one.values]) < 10
    assert (job.study or {})["stopping"] == "budget_exhausted"
    again = begin({"budget": {"max_device_hours": 0.02}}, trials=50, pruner="none", warm_start=[study.id])
    again.tune()
    assert not set(again.points()) & {tuple(sorted(one.parameters.items())) for one in study.trials() if one.values}


def test_max_hours_end_a_search_once_its_trials_have_come_back(begin: Begin) -> None:
    study = begin(trials=50, pruner="none", max_hours=2)
    study.turn()
    study.tune()
    held = study.open()
    for attempt in held:
        study.control.report(attempt, CLAIMED, STARTED)
    with study.control.sessions.begin() as session:
        session.execute(update(Attempt).values(claimed_at=Attempt.claimed_at - timedelta(hours=3)))
    study.tune()
    assert ((study.job().study or {})["stopping"], study.job().finished_at) == ("time_limit", None)
    for attempt in held:
        study.control.report(attempt, finished(Reason.PAUSED_BY_CLIENT, 3))
    study.tune()
    job = study.job()
    assert (job.status, job.reason) == ("succeeded", "limit_reached")
    assert not [one for one in study.trials() if one.finished_at is None]


def test_the_best_is_trained_again_with_another_seed(begin: Begin) -> None:
    study = begin(trials=5, finish="retrain")
    assert study.play().status == "succeeded"
    last = study.trials()[-1]
    assert (last.origin, last.parameters["training.seed"], len(study.trials())) == ("retrain", 1, 6)


def test_a_warm_start_knows_what_the_earlier_search_found(begin: Begin) -> None:
    first = begin(space=SMALL, trials=4, pruner="none")
    first.play()
    second = begin(space=SMALL, trials=50, warm_start=[first.id])
    second.play()
    assert len(second.points()) == 2
    assert not set(first.points()) & set(second.points())


def test_a_warm_start_that_does_not_fit_is_refused_where_it_stands(begin: Begin, client: httpx2.Client) -> None:
    first = begin(space=SMALL, trials=4)
    other = "job_00000000000000000000000000"
    plain = client.post("/v1/jobs", json=SPEC).json()["id"]

    def refused(data: str = SPEC["dataset"]["uri"], **search: Any) -> str:
        body = {**SPEC, "dataset": {"uri": data}, "search": {"space": SMALL, **search}}
        answer = client.post("/v1/jobs", json=body)
        assert answer.status_code == 422
        entry = answer.json()["errors"][0]
        assert entry["pointer"] == f"/search/warm_start/{len(search['warm_start']) - 1}"
        message: str = entry["message"]
        return message

    assert "no such search" in refused(warm_start=[first.id, other])
    assert "no such search" in refused(warm_start=[plain])
    assert "other data" in refused("file:///data/dogs/", warm_start=[first.id])
    assert RATE in refused(space=SPACE, warm_start=[first.id])
    assert "no value of device_seconds" in refused(objective={"metric": "device_seconds"}, warm_start=[first.id])


def test_a_decision_that_cannot_be_made_ends_its_own_search_alone(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, well = begin(trials=7), begin(trials=5)
    decide = tuner.decide

    def fails_for_one(view: StudyView, room: int) -> list[Move]:
        if view.search.trials == 7:
            raise ZeroDivisionError
        return decide(view, room)

    with monkeypatch.context() as patched:
        patched.setattr(tuner, "decide", fails_for_one)
        broken.tuner.tune_all()
    assert (broken.job().status, broken.job().reason) == ("failed", "search_error")
    assert "ZeroDivisionError" in (broken.job().error or {})["message"]
    assert well.play().status == "succeeded"
