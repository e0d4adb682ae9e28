"""Hostile bodies: bounded answers, a loop that goes on, and one door for every route."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest
from fastapi.routing import iter_route_contexts

from api.app import create_app
from api.bodies.door import Json
from api.settings import Settings
from tests.integration.conftest import SPEC

JSON = {"Content-Type": "application/json"}
SPACE = {"training.optimizer.learning_rate": {"type": "float", "low": 0.1, "high": 1.0}}


def answer(client: httpx2.Client, body: Any) -> tuple[int, dict[str, Any]]:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = client.post("/v1/jobs", content=content, headers=JSON)
    assert len(response.content) < 100_000
    return response.status_code, response.json()


def test_a_body_of_many_faults_gets_fifty_of_them_and_twenty_suggestions(client: httpx2.Client) -> None:
    status, problem = answer(client, {**SPEC, **{f"datase{number}": 0 for number in range(900)}})
    assert (status, len(problem["errors"])) == (422, 50)
    assert problem["detail"].endswith("(and 899 more)")
    assert sum("did_you_mean" in entry for entry in problem["errors"]) == 20


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({**SPEC, **{f"x{n}": 0 for n in range(1001)}}, 422, "1,000 members"),
        ({**SPEC, "exports": ["onnx"] * 1001}, 422, "1,000 items"),
        ({**SPEC, "x" * 300_000: 1}, 422, "256 characters"),
        ({**SPEC, "name": "x" * 300_000}, 422, "100,000 characters"),
        ({**SPEC, "search": {"space": SPACE, "points": [{f"A{n}": []} for n in range(900)] * 8}}, 413, "12,000 values"),
        (b'{"a":' * 100 + b"1" + b"}" * 100, 400, "32 levels"),
        (b"[" * 900_000, 400, "32 levels"),
        (b'{"priority": ' + b"9" * 900_000 + b"}", 422, "64 characters"),
        (b'{"priority": 0.' + b"9" * 900_000 + b"}", 422, "64 characters"),
        (b'{"priority": 1e99999999}', 422, ""),
        (b'{"' + b'","'.join([b"x"] * 200_000) + b'"}', 413, "12,000 values"),
    ],
)  # fmt: skip
def test_everything_in_a_body_is_bounded(client: httpx2.Client, body: Any, status: int, words: str) -> None:
    given, problem = answer(client, body)
    assert (given, words in json.dumps(problem)) == (status, True), problem


def test_large_bodies_are_read_elsewhere_and_booked_as_small_ones_are(client: httpx2.Client) -> None:
    points = [{"training.optimizer.learning_rate": 0.1 + n / 1000} for n in range(900)]
    spec = {**SPEC, "search": {"space": SPACE, "points": points}}
    job = client.post("/v1/jobs", json=spec)
    assert (job.status_code, len(job.json()["spec"]["search"]["points"])) == (202, 900)
    wrong = {**SPEC, "search": {"space": {"training.epoch": SPACE.popitem()[1]}, "points": points[:1] * 900}}
    assert "training.epochs" in str(client.post("/v1/jobs", json=wrong).json()["errors"])


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"priority": True}, "/priority"),
        ({"priority": "5"}, "/priority"),
        ({"training": {"epochs": True}}, "/training/epochs"),
        ({"training": {"epochs": "5"}}, "/training/epochs"),
        ({"training": {"label_smoothing": True}}, "/training/label_smoothing"),
        ({"model": {"pretrained": 1}}, "/model/pretrained"),
        ({"model": {"pretrained": "true"}}, "/model/pretrained"),
        ({"name": 5}, "/name"),
        ({"labels": {"a": "x\0y"}}, "/labels/a"),
        ({"labels": {"a\0b": "x"}}, "/labels/a\0b"),
        ({"dataset": {"uri": "file:///x\0"}}, "/dataset/uri"),
        ({"metadata": {"a": "\ud800"}}, "/metadata/a"),
    ],
)  # fmt: skip
def test_a_value_of_another_type_is_none(client: httpx2.Client, change: dict[str, Any], pointer: str) -> None:
    status, problem = answer(client, {**SPEC, **change})
    assert (status, [entry["pointer"] for entry in problem["errors"]]) == (422, [pointer])


def test_a_whole_number_is_one_however_it_is_written(client: httpx2.Client) -> None:
    body = json.dumps({**SPEC, "priority": 0}).replace('"priority": 0', '"priority": 5.0')
    status, job = answer(client, body.encode())
    assert (status, job["priority"]) == (202, 5)


def test_the_same_body_is_the_same_however_it_is_written(client: httpx2.Client) -> None:
    def post(body: dict[str, Any]) -> httpx2.Response:
        return client.post("/v1/jobs", json=body, headers={"Idempotency-Key": "k"})

    first = post({**SPEC, "labels": {"a": "1", "b": "2"}, "budget": {"max_cost": "5"}})
    written = {"labels": {"b": "2", "a": "1"}, "priority": 0, "model": {"name": "auto"}, "budget": {"max_cost": 5.00}}
    again = post({**written, **SPEC})
    assert (again.status_code, again.json().get("id")) == (202, first.json()["id"])
    assert post({**SPEC, "labels": {"a": "2", "b": "1"}, "budget": {"max_cost": "5"}}).status_code == 422


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/json-or-not"}, {"Content-Type": "application/json; charset=latin-1"},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"}, {"Content-Type": "application/jsonp"},
    ],
)  # fmt: skip
def test_what_is_not_plainly_json_is_a_415(client: httpx2.Client, headers: dict[str, str]) -> None:
    assert client.post("/v1/jobs", content=json.dumps(SPEC).encode(), headers=headers).status_code == 415


def test_every_route_with_a_json_body_takes_it_through_the_one_door(settings: Settings) -> None:
    """And behind the key: without one nothing of a body is looked at."""
    bodies = 0
    for route in iter_route_contexts(create_app(settings).routes):
        field = getattr(route, "body_field", None)
        assert field is None or "multipart" in repr(field.field_info), route.path
        calls = [one.call for one in route.dependant.dependencies] if hasattr(route, "dependant") else []
        doors = [index for index, call in enumerate(calls) if isinstance(call, Json)]
        keys = [index for index, call in enumerate(calls) if "principal" in getattr(call, "__name__", "")]
        bodies += len(doors)
        assert not doors or (keys and keys[0] < doors[0]), route.path
    assert bodies >= 3
