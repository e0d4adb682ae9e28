"""Submit, list, read, wait and cancel over real HTTP, on a database built by the migrations."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from tests.integration.conftest import SPEC, Control


def submit(client: httpx2.Client, **more: object) -> dict[str, object]:
    response = client.post("/v1/jobs", json={**SPEC, **more})
    assert response.status_code == 202, response.text
    body: dict[str, object] = response.json()
    return body


def test_a_job_is_booked_and_found_again(client: httpx2.Client) -> None:
    response = client.post("/v1/jobs", json={**SPEC, "name": "pets", "labels": {"team": "vision"}})
    job = response.json()
    assert response.status_code == 202
    assert response.headers["location"] == f"/v1/jobs/{job['id']}"
    assert (job["status"], job["terminal"], job["actions"]) == ("queued", False, ["cancel", "pause"])
    assert job["queue"]["position"] == 1
    assert client.get(response.headers["location"]).json()["spec"]["model"]["name"] == "auto"
    events = client.get(f"/v1/jobs/{job['id']}/events").json()["data"]
    assert [(event["seq"], event["type"]) for event in events] == [(1, "job.created")]


def test_validate_only_books_nothing(client: httpx2.Client, control: Control) -> None:
    control.heartbeat()
    training = {"epochs": 3, "early_stopping": {"patience": 5}}
    response = client.post("/v1/jobs?validate_only=true", json={**SPEC, "training": training})
    assert response.status_code == 200
    assert "patience" in response.json()["warnings"][0]
    assert client.get("/v1/jobs").json()["data"] == []
    assert client.post("/v1/jobs?validate_only=true", json={"task": "x"}).status_code == 422


@pytest.mark.parametrize(
    ("change", "warning"),
    [
        ({"model": {"name": "small_cnn", "pretrained": True}}, "model.pretrained"),
        ({"training": {"epochs": 9, "sampling": {"balance": "weights"}}}, "training.sampling.balance"),
        ({"training": {"epochs": 9, "augmentation": {"preset": "none", "check": True}}}, "training.augmentation.check"),
        ({"dataset": {**SPEC["dataset"], "format": "idx", "columns": {"label": "y"}}}, "dataset.columns"),
        ({"dataset": {**SPEC["dataset"], "format": "idx", "split": {"group_by": "g"}}}, "dataset.split.group_by"),
        ({}, None),
    ],
)
def test_warnings_name_the_field_that_will_disappoint(
    client: httpx2.Client, control: Control, change: dict[str, object], warning: str | None
) -> None:
    control.heartbeat()
    answer = client.post("/v1/jobs?validate_only=true", json={**SPEC, **change}).json()
    assert [text.split(" ")[0] for text in answer["warnings"]] == ([warning] if warning else [])


def test_every_post_retried_five_times_at_once_makes_one_job_each(client: httpx2.Client) -> None:
    def post(number: int) -> str:
        key = {"Idempotency-Key": f"key-{number}"}
        response = client.post("/v1/jobs", json={**SPEC, "name": f"job {number}"}, headers=key)
        assert response.status_code == 202, response.text
        return str(response.json()["id"])

    with ThreadPoolExecutor(20) as pool:
        ids = list(pool.map(post, [number for number in range(8) for _ in range(5)]))
    assert len(set(ids)) == 8
    assert len(client.get("/v1/jobs?limit=100").json()["data"]) == 8


def test_a_key_belongs_to_one_body_and_says_when_it_replays(client: httpx2.Client) -> None:
    headers = {"Idempotency-Key": "k"}
    first = client.post("/v1/jobs", json=SPEC, headers=headers)
    again = client.post("/v1/jobs", json={**SPEC, "priority": 0}, headers=headers)  # the same after validation
    other = client.post("/v1/jobs", json={**SPEC, "priority": 5}, headers=headers)
    assert "idempotency-replayed" not in first.headers
    assert (again.headers["idempotency-replayed"], again.json()["id"]) == ("true", first.json()["id"])
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")


def test_pages_follow_each_other_without_gap_or_repeat(client: httpx2.Client) -> None:
    made = [submit(client, name=f"n{number}")["id"] for number in range(7)]
    seen, cursor = [], ""
    while True:
        page = client.get(f"/v1/jobs?limit=3{cursor}").json()
        seen += [job["id"] for job in page["data"]]
        if not page["has_more"]:
            break
        cursor = f"&after={page['next_cursor']}"
    assert seen == made[::-1]


def test_filters_narrow_the_list(client: httpx2.Client) -> None:
    submit(client, name="cats", labels={"team": "a"}, external_id="x1")
    submit(client, name="dogs", labels={"team": "b"})
    names = lambda query: [job["name"] for job in client.get(f"/v1/jobs?{query}").json()["data"]]  # noqa: E731
    assert names("label=team:a") == ["cats"]
    assert names("name=do") == ["dogs"]
    assert names("external_id=x1") == ["cats"]
    assert names("status=running,failed") == []
    assert client.get("/v1/jobs?label=oops").status_code == 422


def test_an_external_id_is_taken_once(client: httpx2.Client) -> None:
    submit(client, external_id="run-1")
    again = client.post("/v1/jobs", json={**SPEC, "external_id": "run-1"})
    assert (again.status_code, again.json()["code"]) == (409, "external_id_taken")


def test_an_unchanged_job_is_a_304_and_a_change_ends_the_wait(client: httpx2.Client) -> None:
    job = submit(client)
    read = client.get(f"/v1/jobs/{job['id']}")
    same = client.get(f"/v1/jobs/{job['id']}", headers={"If-None-Match": read.headers["etag"]})
    assert (same.status_code, same.content) == (304, b"")
    cancel = threading.Timer(0.3, lambda: client.post(f"/v1/jobs/{job['id']}/cancel"))
    cancel.start()
    waited = client.get(f"/v1/jobs/{job['id']}?wait=15&until=terminal", headers={"If-None-Match": read.headers["etag"]})
    cancel.join()
    assert (waited.status_code, waited.json()["status"]) == (200, "cancelled")
    assert waited.elapsed.total_seconds() < 10


def test_cancelling_twice_is_the_same_as_once(client: httpx2.Client, control: Control) -> None:
    job = submit(client)
    for _ in range(2):
        answer = client.post(f"/v1/jobs/{job['id']}/cancel")
        assert (answer.status_code, answer.json()["status"]) == (202, "cancelled")
    kinds = [event["type"] for event in client.get(f"/v1/jobs/{job['id']}/events").json()["data"]]
    assert kinds == ["job.created", "job.cancelled"]


def test_another_projects_job_does_not_exist(client: httpx2.Client, api_url: str, keys: Callable[[str], str]) -> None:
    job = submit(client)
    stranger = {"Authorization": f"Bearer {keys('other')}"}
    for path in (
        "",
        "/events",
        "/stream",
        "/metrics",
        "/checkpoints",
        "/checkpoints/c",
        "/checkpoints/c/download",
        "/data_report",
        "/data_report/removed",
        "/data_report/difficulty",
    ):
        answer = httpx2.get(f"{api_url}/v1/jobs/{job['id']}{path}", headers=stranger)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), path
    assert httpx2.post(f"{api_url}/v1/jobs/{job['id']}/cancel", headers=stranger).status_code == 404
    assert httpx2.get(f"{api_url}/v1/jobs", headers=stranger).json()["data"] == []


@pytest.mark.parametrize(
    "header", [None, "Bearer", "Basic abc", "Bearer ty_x", "Bearer ty_01ARZ3NDEKTSV4RRFFQ69G5FAV_" + "a" * 43]
)
def test_without_a_good_key_everything_is_401(api_url: str, header: str | None) -> None:
    headers = {"Authorization": header} if header else {}
    answer = httpx2.get(f"{api_url}/v1/jobs", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
    assert answer.headers["www-authenticate"].startswith("Bearer")


def test_the_openapi_document_shows_the_spec_and_the_problem(client: httpx2.Client) -> None:
    document = client.get("/openapi.json").json()
    post = document["paths"]["/v1/jobs"]["post"]
    assert post["requestBody"]["content"]["application/json"]["schema"]["$ref"].endswith("JobSpec")
    assert "learning_rate" in document["components"]["schemas"]["Optimizer"]["properties"]
    assert list(post["responses"]["422"]["content"]) == ["application/problem+json"]
    plan = document["paths"]["/v1/plans"]["post"]
    assert plan["requestBody"]["content"]["application/json"]["schema"]["$ref"].endswith("JobSpec")
    assert "train_images" in [one["name"] for one in plan["parameters"]]
    paths = ("pause", "resume", "profile", "efficiency", "artifacts", "artifacts/{artifact_id}/download")
    assert {f"/v1/jobs/{{job_id}}/{path}" for path in paths} <= set(document["paths"])
    assert set(document["paths"]["/v1/jobs/{job_id}/checkpoints/{checkpoint_id}/pin"]) == {"post", "delete"}
    text = json.dumps(document)
    assert all(reference in document["components"]["schemas"] for reference in
               {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]})  # fmt: skip


def test_health_and_readiness(client: httpx2.Client) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    ready = client.get("/readyz")
    assert (ready.status_code, ready.json()["checks"]["workers"]["online"]) == (200, 0)
