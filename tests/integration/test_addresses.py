"""Addresses to the letter: methods, slashes, parameters, cursors, ETags; and a fault of ours is a named problem."""

from __future__ import annotations

import base64
from typing import Any

import httpx2
import pytest
from fastapi.testclient import TestClient

from api.app import create_app
from api.settings import Settings
from tests.integration.conftest import SPEC


def refused(client: httpx2.Client, path: str) -> list[dict[str, Any]]:
    response = client.get(path)
    assert response.status_code == 422, (path, response.text)
    entries: list[dict[str, Any]] = response.json()["errors"]
    return entries


@pytest.mark.parametrize(
    ("path", "parameter", "meant"),
    [
        ("/v1/jobs?statuss=queued", "statuss", "status"),
        ("/v1/jobs?status=qeued", "status", "queued"),
        ("/v1/jobs/job_x?wiat=5", "wiat", "wait"),
        ("/v1/jobs/job_x?until=chang", "until", "change"),
        ("/v1/jobs/job_x/metrics?name=a", "name", "names"),
        ("/v1/jobs/{id}/events?types=job.create", "types", "job.created"),
        ("/v1/jobs/{id}/trials?origin=rnadom", "origin", "random"),
        ("/v1/jobs/{id}/trials?status=prunned", "status", "pruned"),
        ("/v1/workers?x=1", "x", None),
        ("/healthz?x=1", "x", None),
    ],
)
def test_what_a_query_does_not_know_is_refused_with_the_nearest(
    client: httpx2.Client, path: str, parameter: str, meant: str | None
) -> None:
    job_id = client.post("/v1/jobs", json=SPEC).json()["id"]
    [entry] = refused(client, path.replace("{id}", job_id))
    assert (entry["parameter"], entry.get("did_you_mean")) == (parameter, meant)


QUERIES = [
    "limit=true", "limit=5.0", "limit=1_0", "limit=%2B5", "limit=%205", "limit=5&limit=6", "limit=", "name=a%00b",
    "created_after=5", "created_after=2026-01-01", "created_after=2026-01-01T00:00:00", "after=job_x",
    "after=%5B" * 3, f"ids={','.join('ab' for _ in range(101))}", "after=chk_%00", "status=",
]  # fmt: skip


def test_a_value_of_another_type_is_none(client: httpx2.Client) -> None:
    for query in QUERIES:
        assert refused(client, f"/v1/jobs?{query}")[0]["parameter"] == query.partition("=")[0], query


def test_a_number_is_no_truth(client: httpx2.Client) -> None:
    for query in ("validate_only=1", "validate_only=yes", "validate_only=True"):
        assert client.post(f"/v1/jobs?{query}", json=SPEC).status_code == 422, query


def test_a_number_in_a_path_is_written_plainly(client: httpx2.Client) -> None:
    job_id = client.post("/v1/jobs", json=SPEC).json()["id"]
    for number in ("1.0", "1_0", "+1", "01", "true", "%D9%A1", "%201"):
        assert refused(client, f"/v1/jobs/{job_id}/trials/{number}")[0]["parameter"] == "number", number


def test_a_nul_in_a_path_is_a_422_and_a_slash_at_the_end_a_404(client: httpx2.Client) -> None:
    assert refused(client, "/v1/jobs/job_%00")[0]["parameter"] == "job_id"
    for path in ("/v1/jobs/", "/v1/jobs/job_x/", "/healthz/", "//v1/jobs"):
        response = client.get(path)
        assert (response.status_code, response.json()["code"]) == (404, "not_found"), path


def test_allow_names_every_method_of_an_address(client: httpx2.Client) -> None:
    refusal = client.delete("/v1/jobs")
    assert (refusal.status_code, refusal.headers["allow"]) == (405, "GET, OPTIONS, POST")
    asked = client.request("OPTIONS", "/v1/jobs")
    assert (asked.status_code, asked.headers["allow"], asked.content) == (204, "GET, OPTIONS, POST", b"")
    path = "/v1/jobs/job_x/checkpoints/ckpt_x"
    assert client.put(f"{path}/pin").headers["allow"] == "DELETE, OPTIONS, POST"
    assert client.post(f"{path}/download").headers["allow"] == "GET, HEAD, OPTIONS"


def test_if_none_match_takes_lists_a_star_and_both_kinds_of_tags(client: httpx2.Client) -> None:
    url = f"/v1/jobs/{client.post('/v1/jobs', json=SPEC).json()['id']}"
    tag = client.get(url).headers["etag"]
    for header in (tag, f'"x", {tag}, W/"y"', "*", tag.removeprefix("W/")):
        assert client.get(url, headers={"If-None-Match": header}).status_code == 304, header
    for header in ('W/"x"', '"v"', "", "v1"):
        assert client.get(url, headers={"If-None-Match": header}).status_code == 200, header


def cursor(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


CURSORS = [
    cursor("[" * 1000), cursor('{"n":1,"k":' + "[" * 1000), cursor('{"n":true}'), cursor('{"n":1.0}'),
    cursor('{"n": 1}'), cursor('{"n":1,"x":2}'), cursor('{"n":1,"k":{}}'), cursor('{"n":1,"k":NaN}'),
    cursor('{"n":1e999}'), cursor('{"n":1,"k":"\\u0000"}'), cursor('{"n":1}') + "=", cursor('{"n":1}') + "\u00e9",
    "A" * 3999, cursor('{"k":"\\ud800","n":1}'),
]  # fmt: skip


def test_a_cursor_that_is_none_of_ours_is_refused(client: httpx2.Client) -> None:
    space = {"training.optimizer.learning_rate": {"type": "float", "low": 0.1, "high": 1.0}}
    job = client.post("/v1/jobs", json={**SPEC, "search": {"space": space}}).json()["id"]
    for after in CURSORS:
        response = client.get(f"/v1/jobs/{job}/trials", params={"sort": "value", "after": after})
        assert (response.status_code, response.json()["errors"][0]["parameter"]) == (422, "after"), after


def test_an_unexpected_error_is_a_problem_with_its_request_id(settings: Settings) -> None:
    app = create_app(settings)

    @app.get("/broken")
    def broken() -> None:
        raise RuntimeError("AKIASECRET")

    with TestClient(app, raise_server_exceptions=False) as client:
        response = client.get("/broken", headers={"Request-Id": "mine"})
    assert (response.status_code, response.headers["request-id"]) == (500, "mine")
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["request_id"] == "mine"
    assert "AKIA" not in response.text
    assert response.headers["x-content-type-options"] == "nosniff"
