"""`/v1/jobs/{id}/trials`: pages in every order, one trial with all that belongs to it, the best, and who may see it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import httpx2
import pytest

from api.book.database import Sessions
from tests.integration.conftest import SPEC
from tests.integration.searches import ACCURACY, LAYERS, LOSS, NETWORK, RATE, Book, submit
from training_core.contract.errors import Reason

ANALYSES = ("best", "importance", "pareto", "parallel_coordinates", "history", "journal")


@pytest.fixture
def book(client: httpx2.Client, sessions: Sessions) -> Book:
    """Of 25 trials every third is pruned at its first rung, one failed, and one has not begun to train."""
    book = Book(sessions, submit(client, trials=30))
    for number in range(25):
        if number == 5:
            book.trial(number, Reason.NAN_LOSS, error={"code": "nan_loss", "message": "Loss is NaN"}, why="Loss is NaN")
        elif number == 24:
            book.trial(number, Reason.SUBMITTED, origin="tpe")
        elif number % 3 == 0:
            book.trial(number, Reason.PRUNED, rungs={0: number / 100}, why="rung 0: last", reached=0.1)
        else:
            book.trial(number, values={ACCURACY: 0.5 + (number * 7 % 25) / 100}, rungs={0: 0.4, 1: 0.5})
    return book


def pages(client: httpx2.Client, job_id: str, query: str, limit: int = 4) -> list[dict[str, Any]]:
    """Every page, one after the other."""
    found, after = [], ""
    while True:
        answer = client.get(f"/v1/jobs/{job_id}/trials?limit={limit}&{query}{after}")
        assert answer.status_code == 200, answer.text
        page = answer.json()
        found += page["data"]
        assert page["has_more"] == (page["next_cursor"] is not None)
        if not page["has_more"]:
            return found
        assert len(page["data"]) == limit
        after = f"&after={page['next_cursor']}"


def test_each_order_shows_every_trial_once_and_those_without_a_value_last(client: httpx2.Client, book: Book) -> None:
    for name, sign in product(("value", ACCURACY, RATE, LAYERS, NETWORK, "number", "created"), ("", "-")):
        found = pages(client, book.job_id, f"sort={sign}{name}", limit=9)
        assert sorted(one["number"] for one in found) == list(range(25))
        having = [one for one in found if _key(one, name) is not None]
        assert having == found[: len(having)]
        by_number = sorted(having, key=lambda one: one["number"])
        assert having == sorted(by_number, key=lambda one: _key(one, name), reverse=sign == "-"), (sign, name)


def _key(one: dict[str, Any], name: str) -> Any:
    if name in ("number", "created"):
        return one["number"]
    return one["value"] if name in ("value", ACCURACY) else one["parameters"][name]


def test_filters_narrow_the_list(client: httpx2.Client, book: Book) -> None:
    def numbers(query: str) -> list[int]:
        return [one["number"] for one in pages(client, book.job_id, query)]

    assert numbers("status=pruned") == [0, 3, 6, 9, 12, 15, 18, 21]
    assert numbers("status=failed,queued") == [5, 24]
    assert numbers("status=failed&status=queued") == [5, 24]
    assert numbers("origin=tpe") == [24]
    values = {one["number"]: one["value"] for one in pages(client, book.job_id, "status=succeeded")}
    assert numbers("min=value:0.6") == numbers(f"min={ACCURACY}:0.6") == [n for n in values if values[n] >= 0.6]
    assert numbers(f"min={LAYERS}:20&max={LAYERS}:22") == [4, 5, 6]
    assert numbers(f"max={RATE}:0.005") == [19, 20, 21, 22, 23, 24]
    assert numbers("status=pruned&min=value:0") == []


def test_what_cannot_be_sorted_or_narrowed_by_is_refused_by_name(client: httpx2.Client, book: Book) -> None:
    refused = {
        "sort=loss": "sort", f"sort=--{RATE}": "sort", "max=value:much": "max", "max=value:nan": "max",
        "max=0.5": "max", "after=xyz": "after", "after=e30": "after", "limit=0": "limit",
    }  # fmt: skip
    for query, parameter in refused.items():
        answer = client.get(f"/v1/jobs/{book.job_id}/trials?{query}")
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request"), query
        assert answer.json()["errors"][0]["parameter"] == parameter
    misspelt = client.get(f"/v1/jobs/{book.job_id}/trials?min=training.optimizer.learning_rat:1")
    assert misspelt.json()["errors"][0]["did_you_mean"] == RATE


def test_one_trial_has_its_spec_its_rungs_its_attempts_and_why_it_ended(client: httpx2.Client, book: Book) -> None:
    kept = book.checkpoint(3, 100)
    book.checkpoint(3, 200, "last")
    trial = client.get(f"/v1/jobs/{book.job_id}/trials/3").json()
    assert (trial["status"], trial["terminal"], trial["why"]) == ("pruned", True, "rung 0: last")
    assert (trial["value"], trial["checkpoint"]) == (None, kept)
    assert [(one["rung"], one["images"], one["values"]) for one in trial["rungs"]] == [(0, 512, {ACCURACY: 0.03})]
    assert trial["spec"]["training"]["optimizer"]["learning_rate"] == trial["parameters"][RATE]
    assert trial["spec"]["model"]["name"] == trial["parameters"][NETWORK]
    assert trial["spec"]["search"] is None
    attempt = trial["attempts"][0]
    seconds = [attempt[f"{name}_seconds"] for name in ("device", "training", "evaluation", "overhead")]
    assert seconds == [10.0, 8.0, 1.5, 0.5]
    assert trial["device_seconds"] == 10.0
    failed = client.get(f"/v1/jobs/{book.job_id}/trials/5").json()
    assert failed["error"]["code"] == "nan_loss"
    kept_ones = client.get(trial["urls"]["checkpoints"]).json()["data"]
    assert [one["step"] for one in kept_ones] == [200, 100]
    assert client.get(f"/v1/jobs/{book.job_id}/checkpoints?trial=4").json()["data"] == []


def test_the_best_is_of_those_that_came_to_their_end(client: httpx2.Client, book: Book, sessions: Sessions) -> None:
    best = client.get(f"/v1/jobs/{book.job_id}/trials/best").json()
    values = [one["value"] for one in pages(client, book.job_id, "status=succeeded")]
    assert best["value"] == max(values)
    assert client.post("/v1/jobs?validate_only=true", json=best["spec"]).status_code == 200
    two = [{"metric": ACCURACY}, {"metric": LOSS}]
    other = Book(sessions, submit(client, objective=two, pruner="none"))
    waiting = client.get(f"/v1/jobs/{other.job_id}/trials/best")
    assert (waiting.status_code, waiting.json()["retryable"]) == (404, True)
    other.trial(0, values={ACCURACY: 0.9, LOSS: 0.9})
    other.trial(1, values={ACCURACY: 0.8, LOSS: 0.1})
    url = f"/v1/jobs/{other.job_id}/trials/best"
    assert client.get(url).json()["number"] == client.get(f"{url}?objective={ACCURACY}").json()["number"] == 0
    assert client.get(f"{url}?objective={LOSS}").json()["number"] == 1
    assert client.get(f"{url}?objective=test/loss").status_code == 422


def test_the_job_says_how_far_its_search_is_and_what_is_best(client: httpx2.Client, book: Book) -> None:
    checkpoint = book.checkpoint(22, 100)
    counts = {"succeeded": 10, "pruned": 8, "failed": 2, "running": 2}
    best = {"trial": 22, "values": {ACCURACY: 0.74}, "parameters": {}, "checkpoint": "jobs/x"}
    book.note(trials=22, counts=counts, parallel=2, share=0.5, ladder=[0.1, 1.0], best=best, stopping=None, warnings=[])
    job = client.get(f"/v1/jobs/{book.job_id}").json()
    assert job["best"] == {
        "trial": 22, "value": 0.74, "checkpoint": checkpoint, "step": 100, "metrics": {ACCURACY: 0.74},
    }  # fmt: skip
    progress = job["progress"]
    assert (progress["trials_done"], progress["trials"], progress["fraction"]) == (20, 30, pytest.approx(20 / 30))
    assert progress["eta_seconds"] == pytest.approx(24 * 10.0 / 20 * 10 / 2)
    assert job["study"]["ladder"] == [0.1, 1.0]
    assert client.get(job["urls"]["trials"]).json()["data"][0]["number"] == 0
    account = client.get(job["urls"]["efficiency"]).json()
    assert (account["object"], account["trials"], account["attempts"]) == ("search_efficiency", 24, 24)
    seconds = [account[f"{name}_seconds"] for name in ("device", "training", "evaluation", "overhead", "unaccounted")]
    assert seconds == [240.0, 192.0, 36.0, 12.0, 0.0]
    assert account["overhead_per_trial_seconds"] == 0.5
    book.note("succeeded", trials=30, counts={"succeeded": 30}, parallel=2, best=best)
    progress = client.get(f"/v1/jobs/{book.job_id}").json()["progress"]
    assert (progress["fraction"], progress["eta_seconds"], progress["trials_done"]) == (1.0, 0.0, 30)


def test_a_job_that_trains_once_has_its_one_trial_and_no_analyses(client: httpx2.Client) -> None:
    job_id = client.post("/v1/jobs", json=SPEC).json()["id"]
    [trial] = client.get(f"/v1/jobs/{job_id}/trials").json()["data"]
    assert (trial["number"], trial["status"], trial["parameters"]) == (0, "queued", {})
    assert client.get(f"/v1/jobs/{job_id}/trials/0").json()["spec"] == client.get(f"/v1/jobs/{job_id}").json()["spec"]
    for name in ANALYSES:
        answer = client.get(f"/v1/jobs/{job_id}/trials/{name}")
        assert (answer.status_code, answer.json()["code"]) == (409, "not_a_search"), name
    assert client.get(f"/v1/jobs/{job_id}/trials?sort=value").status_code == 422
    assert "trials" not in client.get(f"/v1/jobs/{job_id}").json()["urls"]


def test_unknown_trials_and_other_projects_are_not_found(
    client: httpx2.Client, book: Book, keys: Callable[[str], str]
) -> None:
    for place in ("25", "25/efficiency", "99999999"):
        answer = client.get(f"/v1/jobs/{book.job_id}/trials/{place}")
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), place
    without = client.get(f"/v1/jobs/{book.job_id}/trials/3/efficiency")
    assert (without.status_code, without.json()["retryable"]) == (404, False)
    assert client.get(f"/v1/jobs/{book.job_id}/trials/-1").status_code == 422
    stranger = {"Authorization": f"Bearer {keys('stranger')}"}
    for place in ("", "/0", "/0/efficiency", *(f"/{name}" for name in ANALYSES)):
        answer = client.get(f"/v1/jobs/{book.job_id}/trials{place}", headers=stranger)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), place
        assert client.get(f"/v1/jobs/{book.job_id}/trials{place}", headers={"Authorization": ""}).status_code == 401


def test_openapi_has_every_route_with_its_answer(client: httpx2.Client) -> None:
    document = client.get("/openapi.json").json()
    paths = document["paths"]
    for place in ("", "/{number}", "/{number}/efficiency", *(f"/{name}" for name in ANALYSES)):
        operation = paths[f"/v1/jobs/{{job_id}}/trials{place}"]["get"]
        assert {"200", "default"} <= set(operation["responses"])
    assert "TrialDetail" in document["components"]["schemas"]
    assert "not_a_search" in document["components"]["schemas"]["Problem"]["properties"]["code"]["enum"]
