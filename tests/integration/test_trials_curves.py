"""Curves and events of a search's trials: by trial, in lists and as they come."""

from __future__ import annotations

import httpx2
import pytest

from api.book import series
from api.book.database import Sessions
from api.book.events import record_event
from api.book.models import Job
from api.book.series import Point
from tests.integration.searches import ACCURACY, Book, submit
from tests.integration.test_api_stream import read_stream
from training_core.contract.errors import Reason


@pytest.fixture
def book(client: httpx2.Client, sessions: Sessions) -> Book:
    """An ended search of three trials with two curves each; trial 1 was resumed from step 1."""
    book = Book(sessions, submit(client))
    for number in range(3):
        book.trial(number, values={ACCURACY: 0.5 + number / 10})
    with sessions.begin() as session:
        job = session.get_one(Job, book.job_id)
        for number in range(3):
            for name in ("train/loss", ACCURACY):
                points = [Point(step, step / 10, 1_764_000_000.0 + step, number + step / 10) for step in (1, 2)]
                series.append(session, book.job_id, number, name, points)
            at = {"resumed_from_step": 1 if number == 1 else 0}
            record_event(session, job, "trial.started", f"Trial {number}", at, trial=number)
        record_event(session, job, "job.succeeded", "The search is over", {"reason": Reason.COMPLETED})
    book.note("succeeded", counts={"succeeded": 3}, best={"trial": 2, "values": {ACCURACY: 0.7}})
    return book


def test_curves_are_those_of_the_trials_asked_for_or_of_the_best(client: httpx2.Client, book: Book) -> None:
    def drawn(query: str) -> list[tuple[int, str]]:
        answer = client.get(f"/v1/jobs/{book.job_id}/metrics{query}")
        assert answer.status_code == 200, answer.text
        return [(one["trial"], one["name"]) for one in answer.json()["series"]]

    assert drawn("") == [(2, "train/loss"), (2, ACCURACY)]
    assert drawn("?trials=0,1&names=train/loss") == [(0, "train/loss"), (1, "train/loss")]
    assert drawn("?trials=7") == []
    for trials in ("", "1,x", "-1", ",".join(["1"] * 51), "99999999999"):
        refused = client.get(f"/v1/jobs/{book.job_id}/metrics?trials={trials}")
        assert (refused.status_code, refused.json()["errors"][0]["parameter"]) == (422, "trials"), trials


def test_a_search_without_a_best_has_no_curves_unless_asked_for(client: httpx2.Client, sessions: Sessions) -> None:
    book = Book(sessions, submit(client))
    assert client.get(f"/v1/jobs/{book.job_id}/metrics").json()["series"] == []


def test_events_and_stream_of_a_search_are_of_all_trials_or_of_one(client: httpx2.Client, book: Book) -> None:
    listed = client.get(f"/v1/jobs/{book.job_id}/events").json()["data"]
    assert [one["trial"] for one in listed if one["type"] == "trial.started"] == [0, 1, 2]
    assert [one["trial"] for one in listed if one["type"].startswith("job.")] == [None, None]
    of_one = client.get(f"/v1/jobs/{book.job_id}/events?trial=1").json()["data"]
    assert [(one["type"], one["trial"]) for one in of_one] == [("trial.started", 1)]
    everything = read_stream(client, book.job_id)
    kinds = [one["event"] for one in everything]
    assert kinds == [*(one["type"] for one in listed), "progress", "done"]
    assert everything[-2]["data"]["trials_done"] == 3
    assert read_stream(client, book.job_id, everything[-1]["id"]) == []


def test_the_stream_of_one_trial_has_its_points_and_ends_with_the_search(client: httpx2.Client, book: Book) -> None:
    heard = read_stream(client, book.job_id, trial=1)
    assert [one["event"] for one in heard] == ["trial.started", "metrics", "progress", "done"]
    curves = heard[1]["data"]["series"]
    assert {(one["trial"], one["name"]) for one in curves} == {(1, "train/loss"), (1, ACCURACY)}
    assert curves[0]["values"] == [1.1, 1.2]
    assert read_stream(client, book.job_id, heard[-1]["id"], trial=1) == []
