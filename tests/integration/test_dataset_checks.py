"""`/v1/dataset_checks`: a job's life without a training, and apart from the jobs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from api.book.models import Attempt
from tests.integration.conftest import SPEC, Control
from tests.integration.test_control import job_of, tickets
from training_core.contract import reports
from training_core.contract.errors import Reason

CHECK: dict[str, Any] = {"task": "image-classification", "dataset": SPEC["dataset"]}
CLAIMED = reports.Claimed(worker="host-a", incarnation="one")
REPORTED = reports.DataReported(
    dataset_version="v1", path="jobs/x/data_report", images=100, findings={"exact_duplicates": 2, "dark": 1},
    removed={"exact_duplicates": 2},
)  # fmt: skip
READY = reports.DataReady(
    dataset_version="v1", classes=["cat", "dog"], images={"train": 88, "validation": 10, "test": 0}, prepared="made",
    seconds=1.5,
)  # fmt: skip
DONE = reports.Finished(reason=Reason.COMPLETED, phase="preparing")


def submit(client: httpx2.Client, **more: Any) -> dict[str, Any]:
    response = client.post("/v1/dataset_checks", json={**CHECK, **more})
    assert response.status_code == 202, response.text
    check: dict[str, Any] = response.json()
    return check


def check_of(client: httpx2.Client, check_id: str) -> dict[str, Any]:
    check: dict[str, Any] = client.get(f"/v1/dataset_checks/{check_id}").json()
    return check


def dispatched(client: httpx2.Client, control: Control, **more: Any) -> tuple[str, Attempt]:
    check_id = submit(client, **more)["id"]
    control.heartbeat()
    control.dispatcher.dispatch()
    return check_id, control.attempts()[-1]


def test_a_check_goes_from_the_queue_to_success_and_trains_nothing(client: httpx2.Client, control: Control) -> None:
    check_id, attempt = dispatched(client, control, image_size=64, name="pets", labels={"team": "a"})
    [ticket] = tickets(control)
    assert (ticket.work, ticket.devices, ticket.spec.training.image_size) == ("check", 0, 64)
    control.report(attempt, CLAIMED)
    assert check_of(client, check_id)["status"] == "preparing"
    control.report(attempt, REPORTED, READY, DONE)
    check = check_of(client, check_id)
    assert check["object"] == "dataset_check"
    assert (check["status"], check["reason"], check["terminal"]) == ("succeeded", "completed", True)
    assert (check["data"]["images"]["train"], check["data_report"]["removed"]) == (88, {"exact_duplicates": 2})
    assert check["phases"]["data_ready"] is not None
    assert check["spec"] == {**check["spec"], "name": "pets", "labels": {"team": "a"}, "image_size": 64}
    assert "training" not in check["spec"]
    events = client.get(check["urls"]["events"]).json()["data"]
    kinds = ["job.created", "job.preparing", "data.report", "data.ready", "job.succeeded"]
    assert [event["type"] for event in events] == kinds
    assert events[2]["message"] == "100 images inspected: 2 exact duplicates, 1 dark; 2 images left out"
    assert events[3]["message"] == "98 images of 2 classes are ready (train 88, validation 10)"
    assert client.get(f"{check['urls']['events']}?after=3&types=data.ready").json()["data"] == [events[3]]


def test_a_check_that_claims_to_train_is_not_believed(client: httpx2.Client, control: Control) -> None:
    check_id, attempt = dispatched(client, control)
    control.report(attempt, CLAIMED, reports.Started(), READY)
    check = check_of(client, check_id)
    assert (check["status"], check["phases"]["data_ready"] is not None) == ("preparing", True)
    events = client.get(f"/v1/dataset_checks/{check_id}/events?types=alert.raised").json()["data"]
    assert [event["data"]["alert"] for event in events] == ["unreadable_report"]


def test_jobs_and_checks_do_not_see_each_other(client: httpx2.Client) -> None:
    check = submit(client)["id"]
    job = client.post("/v1/jobs", json=SPEC).json()["id"]
    assert (check[:4], job[:4]) == ("chk_", "job_")
    assert [one["id"] for one in client.get("/v1/jobs").json()["data"]] == [job]
    assert [one["id"] for one in client.get("/v1/dataset_checks").json()["data"]] == [check]
    for part in ("", "/events", "/stream", "/metrics", "/checkpoints", "/data_report", "/data_report/removed"):
        assert client.get(f"/v1/jobs/{check}{part}").status_code == 404, part
    for part in ("", "/events", "/data_report", "/data_report/removed"):
        answer = client.get(f"/v1/dataset_checks/{job}{part}")
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), part
    assert client.post(f"/v1/jobs/{check}/cancel").status_code == 404
    assert client.post(f"/v1/dataset_checks/{job}/cancel").status_code == 404
    assert client.get(f"/v1/jobs?ids={check},{job}").json()["data"][0]["id"] == job


def test_checks_are_listed_in_pages_and_filtered(client: httpx2.Client) -> None:
    made = [submit(client, name=f"n{number}", external_id=f"x{number}")["id"] for number in range(5)]
    for _ in range(3):
        client.post("/v1/jobs", json=SPEC)
    seen, cursor = [], ""
    while True:
        page = client.get(f"/v1/dataset_checks?limit=2{cursor}").json()
        seen += [check["id"] for check in page["data"]]
        if not page["has_more"]:
            break
        cursor = f"&after={page['next_cursor']}"
    assert seen == made[::-1]
    assert [one["name"] for one in client.get("/v1/dataset_checks?external_id=x3").json()["data"]] == ["n3"]
    assert client.get("/v1/dataset_checks?status=failed").json()["data"] == []


def test_a_repeated_post_finds_its_check(client: httpx2.Client) -> None:
    headers = {"Idempotency-Key": "k"}
    first = client.post("/v1/dataset_checks", json=CHECK, headers=headers)
    again = client.post("/v1/dataset_checks", json={**CHECK, "image_size": "auto"}, headers=headers)
    assert first.headers["location"] == again.headers["location"] == f"/v1/dataset_checks/{first.json()['id']}"
    assert ("idempotency-replayed" in first.headers, again.headers["idempotency-replayed"]) == (False, "true")
    as_job = client.post("/v1/jobs", json=CHECK, headers=headers)
    assert (as_job.status_code, as_job.json()["code"]) == (422, "idempotency_key_reused")
    submit(client, external_id="run-1")
    taken = client.post("/v1/dataset_checks", json={**CHECK, "external_id": "run-1"})
    assert (taken.status_code, taken.json()["code"]) == (409, "external_id_taken")


def test_a_wait_ends_with_the_check_and_an_unchanged_one_is_a_304(client: httpx2.Client, control: Control) -> None:
    check_id, attempt = dispatched(client, control)
    read = client.get(f"/v1/dataset_checks/{check_id}")
    known = {"If-None-Match": read.headers["etag"]}
    assert client.get(f"/v1/dataset_checks/{check_id}", headers=known).status_code == 304
    end = threading.Timer(0.3, lambda: control.report(attempt, CLAIMED, REPORTED, READY, DONE))
    end.start()
    waited = client.get(f"/v1/dataset_checks/{check_id}?wait=15&until=terminal", headers=known)
    end.join()
    assert (waited.status_code, waited.json()["status"]) == (200, "succeeded")
    assert waited.elapsed.total_seconds() < 10


def test_cancelling_a_check(client: httpx2.Client, control: Control) -> None:
    queued = submit(client)["id"]
    assert client.post(f"/v1/dataset_checks/{queued}/cancel").json()["status"] == "cancelled"
    check_id, attempt = dispatched(client, control)
    control.report(attempt, CLAIMED)
    answer = client.post(f"/v1/dataset_checks/{check_id}/cancel").json()
    assert (answer["status"], answer["cancel_requested"], answer["actions"]) == ("preparing", True, [])
    assert "preparation" in answer["status_detail"]
    control.report(attempt, reports.Finished(reason=Reason.CANCELLED_BY_CLIENT, phase="preparing"))
    assert check_of(client, check_id)["status"] == "cancelled"
    check_id, attempt = dispatched(client, control)
    control.report(attempt, CLAIMED, REPORTED, READY, DONE)
    late = client.post(f"/v1/dataset_checks/{check_id}/cancel")
    assert (late.status_code, late.json()["code"]) == (409, "invalid_transition")
    assert late.json()["detail"].startswith("A dataset check that is succeeded")


def test_a_lost_worker_costs_a_check_an_attempt_and_nothing_else(client: httpx2.Client, control: Control) -> None:
    check_id, first = dispatched(client, control)
    control.report(first, CLAIMED)
    control.heartbeat(incarnation="two")
    assert (check_of(client, check_id)["status"], check_of(client, check_id)["reason"]) == ("queued", "worker_lost")
    control.dispatcher.dispatch()
    second = control.attempts()[-1]
    control.report(first, REPORTED, READY, DONE)  # whatever the lost one says
    assert check_of(client, check_id)["status"] == "preparing"
    control.report(second, CLAIMED, REPORTED, READY, DONE)
    assert (check_of(client, check_id)["status"], check_of(client, check_id)["attempt"]) == ("succeeded", 2)


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"training": {"epochs": 3}}, "/training"),
        ({"image_size": 4}, "/image_size"),
        ({"dataset": {"uri": "gopher://x"}}, "/dataset/uri"),
        ({"dataset": {"uri": "file:///x", "label_check": {}}}, "/dataset/label_check"),
        ({"dataset": {"uri": "file:///x", "columns": {"lable": "y"}}}, "/dataset/columns/lable"),
        ({"task": "guessing"}, "/task"),
    ],
)
def test_every_wrong_place_of_a_check_has_a_pointer(
    client: httpx2.Client, change: dict[str, Any], pointer: str
) -> None:
    response = client.post("/v1/dataset_checks", json={**CHECK, **change})
    assert (response.status_code, response.json()["errors"][0]["pointer"]) == (422, pointer)


def test_another_projects_check_does_not_exist(client: httpx2.Client, api_url: str, keys: Callable[[str], str]) -> None:
    check = submit(client)["id"]
    stranger = {"Authorization": f"Bearer {keys('other')}"}
    for part in ("", "/events", "/data_report", "/data_report/removed"):
        assert httpx2.get(f"{api_url}/v1/dataset_checks/{check}{part}", headers=stranger).status_code == 404, part
    assert httpx2.post(f"{api_url}/v1/dataset_checks/{check}/cancel", headers=stranger).status_code == 404
    assert httpx2.get(f"{api_url}/v1/dataset_checks", headers=stranger).json()["data"] == []
    assert httpx2.post(f"{api_url}/v1/dataset_checks", json=CHECK).status_code == 401


def test_the_openapi_document_shows_what_a_check_takes(client: httpx2.Client) -> None:
    document = client.get("/openapi.json").json()
    post = document["paths"]["/v1/dataset_checks"]["post"]
    assert post["requestBody"]["content"]["application/json"]["schema"]["$ref"].endswith("DatasetCheckSpec")
    assert "image_size" in document["components"]["schemas"]["DatasetCheckSpec"]["properties"]


def test_a_job_tells_of_its_data(client: httpx2.Client, control: Control) -> None:
    job_id = client.post("/v1/jobs", json=SPEC).json()["id"]
    control.heartbeat()
    control.dispatcher.dispatch()
    attempt = control.attempts()[-1]
    control.report(attempt, CLAIMED, REPORTED)
    job = job_of(client, job_id)
    assert (job["data"], job["data_report"]["findings"]) == (None, {"exact_duplicates": 2, "dark": 1})
    assert job["urls"]["data_report"] == f"/v1/jobs/{job_id}/data_report"
    control.report(attempt, READY)
    job = job_of(client, job_id)
    assert job["data"] == {**job["data"], "prepared": "made", "classes": ["cat", "dog"]}
    assert job["phases"]["data_ready"] is not None
