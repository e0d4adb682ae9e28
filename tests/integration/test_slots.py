"""Preparation runs before any device is held: what the book gives away, to whom, and what it shows of it."""

from __future__ import annotations

from typing import Any

import httpx2

from api.book.models import Attempt
from tests.integration.conftest import SPEC, Control
from training_core.contract import reports
from training_core.contract.errors import Reason

CLAIMED = reports.Claimed(worker="host-a", incarnation="one")
READY = reports.DataReady(
    dataset_version="v1", classes=["cat", "dog"], images={"train": 90, "validation": 10}, prepared="made", seconds=1.0
)
STARTED = reports.Started()
CHECK = {"task": "image-classification", "dataset": SPEC["dataset"]}


def submit(client: httpx2.Client, **more: Any) -> str:
    response = client.post("/v1/jobs", json={**SPEC, **more})
    assert response.status_code == 202, response.text
    return str(response.json()["id"])


def job_of(client: httpx2.Client, job_id: str) -> dict[str, Any]:
    job: dict[str, Any] = client.get(f"/v1/jobs/{job_id}").json()
    return job


def free_slots(client: httpx2.Client) -> tuple[int, int]:
    """As `/v1/workers` and as `/v1/profiles` count them."""
    [worker] = client.get("/v1/workers").json()["data"]
    profile = next(one for one in client.get("/v1/profiles").json()["data"] if one["name"] == "cpu")
    return worker["slots_free"], profile["free"]


def booked(control: Control) -> list[Attempt]:
    control.dispatcher.dispatch()
    return control.attempts()


def test_the_next_job_prepares_beside_a_full_slot_and_the_third_waits(client: httpx2.Client, control: Control) -> None:
    first, second, third = submit(client), submit(client), submit(client)
    control.heartbeat()
    [running] = booked(control)
    assert (running.job_id, free_slots(client)) == (first, (1, 1))
    control.report(running, CLAIMED, READY)
    assert free_slots(client) == (0, 0)
    _, preparing = booked(control)
    assert preparing.job_id == second
    control.report(running, STARTED)
    assert len(booked(control)) == 2
    assert "awaited by jobs whose data is being prepared" in job_of(client, third)["queue"]["reason"]
    control.report(running, reports.Finished(reason=Reason.COMPLETED, phase="running"))
    assert free_slots(client) == (1, 1)
    control.report(preparing, CLAIMED, READY)
    assert free_slots(client) == (0, 0)
    assert [attempt.job_id for attempt in booked(control)] == [first, second, third]


def test_data_that_is_ready_while_the_slot_is_taken_keeps_further_jobs_from_preparing(
    client: httpx2.Client, control: Control
) -> None:
    _, second, _ = submit(client), submit(client), submit(client)
    control.heartbeat()
    [running] = booked(control)
    control.report(running, CLAIMED, READY, STARTED)
    waiting = booked(control)[1]
    control.report(waiting, CLAIMED, READY)
    assert "free slot" in job_of(client, second)["status_detail"]
    assert len(booked(control)) == 2


def test_a_job_given_back_for_want_of_a_slot_waits_for_one_that_is_really_free(
    client: httpx2.Client, control: Control
) -> None:
    submit(client)
    second = submit(client)
    control.heartbeat()
    [running] = booked(control)
    control.report(running, CLAIMED, READY, STARTED)
    waiting = booked(control)[1]
    control.report(waiting, CLAIMED, READY, reports.Finished(reason=Reason.NO_SLOT, phase="preparing"))
    assert job_of(client, second)["queue"]["code"] == "not_looked_at"
    assert len(booked(control)) == 2
    job = job_of(client, second)
    assert (job["status"], job["reason"], job["queue"]["reason"]) == (
        "queued", "no_slot", "All slots for profile cpu are taken",
    )  # fmt: skip
    control.report(running, reports.Finished(reason=Reason.COMPLETED, phase="running"))
    again = booked(control)[2]
    assert (again.job_id, again.number) == (second, 2)
    assert free_slots(client) == (0, 0)  # from its booking on: its data is there already
    control.report(again, CLAIMED, READY, STARTED)
    assert (job_of(client, second)["status"], job_of(client, second)["status_detail"]) == ("running", None)


def test_being_given_back_costs_no_retry(client: httpx2.Client, control: Control) -> None:
    job_id = submit(client)
    control.heartbeat()
    for _ in range(6):
        attempt = booked(control)[-1]
        control.report(attempt, CLAIMED, READY, reports.Finished(reason=Reason.NO_SLOT, phase="preparing"))
        assert job_of(client, job_id)["status"] == "queued"


def test_two_prepared_jobs_never_count_on_the_same_slot(client: httpx2.Client, control: Control) -> None:
    for _ in range(2):
        submit(client)
    control.heartbeat()
    first = booked(control)[-1]
    control.report(first, CLAIMED, READY, STARTED)
    second = booked(control)[-1]
    control.report(second, CLAIMED, READY, reports.Finished(reason=Reason.NO_SLOT, phase="preparing"))
    control.report(first, reports.Finished(reason=Reason.WORKER_SHUTDOWN, phase="running"))
    assert len(booked(control)) == 3


def test_the_worker_with_the_most_free_slots_is_taken(client: httpx2.Client, control: Control) -> None:
    control.heartbeat(slots=1)
    control.heartbeat(worker="host-b", slots=3)
    jobs = [submit(client) for _ in range(4)]
    worker = {attempt.job_id: attempt.worker for attempt in booked(control)}
    assert [worker[job] for job in jobs] == ["host-b", "host-b", "host-a", "host-b"]


def test_a_job_given_back_returns_to_the_host_that_has_its_data(client: httpx2.Client, control: Control) -> None:
    control.heartbeat(slots=1)
    job = submit(client)
    attempt = booked(control)[-1]
    control.report(attempt, CLAIMED, READY, reports.Finished(reason=Reason.NO_SLOT, phase="preparing"))
    control.heartbeat(slots=1)  # a host that fell silent meanwhile would not be asked
    control.heartbeat(worker="host-b", slots=4)
    assert [one.worker for one in booked(control)] == ["host-a", "host-a"]
    control.report(control.attempts()[-1], reports.Finished(reason=Reason.PROCESS_DIED, phase="running"))
    assert booked(control)[-1].worker == "host-b"
    assert job_of(client, job)["attempt"] == 3


def test_checks_take_no_slot_and_leave_the_jobs_their_place(client: httpx2.Client, control: Control) -> None:
    control.heartbeat()
    job = submit(client)
    running = booked(control)[-1]
    control.report(running, CLAIMED, READY, STARTED)
    checks = [client.post("/v1/dataset_checks", json=CHECK).json()["id"] for _ in range(3)]
    assert [(one.job_id, one.devices) for one in booked(control)] == [(job, 1), (checks[0], 0), (checks[1], 0)]
    assert free_slots(client) == (0, 0)
    third = client.get(f"/v1/dataset_checks/{checks[2]}").json()
    assert (third["queue"]["position"], third["queue"]["code"]) == (1, "checks_full")
    assert third["queue"]["reason"] == "Every worker has as many dataset checks as it runs at once"
    next_job = submit(client)
    assert booked(control)[-1].job_id == next_job  # it prepares beside the training and both checks
    [worker] = client.get("/v1/workers").json()["data"]
    assert (sorted(worker["jobs"]), sorted(worker["dataset_checks"])) == (sorted([job, next_job]), sorted(checks[:2]))
