"""Time and money over all attempts of a job: counted while devices are used, warned of, and never begun without."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import text

from api.book.models import Attempt
from api.settings import Settings
from tests.integration.conftest import SPEC, Control
from tests.integration.test_control import CLAIMED, STARTED, checkpoint, dispatched, finished, job_of, tickets
from training_core.contract import reports
from training_core.contract.errors import Reason

HOUR = 3600
PROFILES = [
    {"name": "cpu", "device": "cpu", "devices": 1, "price_per_hour": "0.30", "currency": "EUR"},
    {"name": "pair", "device": "cpu", "devices": 2, "price_per_hour": "0.5000", "currency": "EUR"},
    {"name": "free", "device": "cpu", "devices": 1},
]


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    file = tmp_path / "profiles.json"
    file.write_text(json.dumps(PROFILES))
    return settings.model_copy(update={"profiles_file": file})


def running(client: httpx2.Client, control: Control, **spec: Any) -> tuple[str, Attempt]:
    job_id, attempt = dispatched(client, control, **spec)
    control.report(attempt, CLAIMED, STARTED)
    return job_id, attempt


def let_pass(control: Control, attempt: Attempt, hours: float) -> None:
    """As if the attempt had used its devices for so long."""
    with control.sessions.begin() as session:
        session.execute(
            text(
                "UPDATE attempts SET booked_at = booked_at - make_interval(secs => :seconds),"
                " started_at = started_at - make_interval(secs => :seconds) WHERE id = :id"
            ),
            {"seconds": hours * HOUR, "id": attempt.id},
        )


def ended(client: httpx2.Client, control: Control, attempt: Attempt, reason: Reason, hours: float) -> dict[str, Any]:
    let_pass(control, attempt, hours)
    control.report(attempt, finished(reason))
    return job_of(client, attempt.job_id)


def test_a_job_costs_what_its_attempts_used_and_waiting_costs_nothing(client: httpx2.Client, control: Control) -> None:
    job_id, first = dispatched(client, control, budget={"max_cost": "5"})
    job = job_of(client, job_id)
    assert job["cost"] == {"accrued": "0.0000", "projected": None, "limit": "5.0000", "currency": "EUR"}
    control.report(first, CLAIMED)
    job = ended(client, control, first, Reason.NO_SLOT, 5)  # booked for hours, and never trained
    assert (job["status"], job["device_hours"]) == ("queued", 0)
    for _ in range(2):
        control.dispatcher.dispatch()
        attempt = control.attempts()[-1]
        control.report(attempt, CLAIMED, STARTED)
        job = ended(client, control, attempt, Reason.WORKER_SHUTDOWN, 2)
    assert job["device_hours"] == pytest.approx(4, abs=0.01)
    assert Decimal(job["cost"]["accrued"]) == pytest.approx(Decimal("1.2"), abs=Decimal("0.001"))


def test_what_the_worker_measured_counts_but_never_more_than_the_time_since_the_booking(
    client: httpx2.Client, control: Control
) -> None:
    job_id, attempt = dispatched(client, control)
    control.report(attempt, CLAIMED)
    let_pass(control, attempt, 1)
    control.report(attempt, finished(Reason.WORKER_SHUTDOWN, held_seconds=HOUR / 2))  # it died before its first report
    assert job_of(client, job_id)["device_hours"] == pytest.approx(0.5)
    control.dispatcher.dispatch()
    again = control.attempts()[-1]
    control.report(again, CLAIMED, STARTED, finished(Reason.COMPLETED, held_seconds=1e9))
    assert job_of(client, job_id)["device_hours"] == pytest.approx(0.5, abs=0.01)


def test_the_cost_of_a_running_job_grows_with_its_changes_and_is_projected(
    client: httpx2.Client, control: Control
) -> None:
    job_id, attempt = running(client, control)
    let_pass(control, attempt, 1)
    before = client.get(f"/v1/jobs/{job_id}")
    progress = reports.Progress(step=1, epoch=0.5, fraction=0.25, images_per_second=1.0, eta_seconds=3 * HOUR)
    control.report(attempt, progress)
    after = client.get(f"/v1/jobs/{job_id}", headers={"If-None-Match": before.headers["etag"]})
    assert after.status_code == 200
    job = after.json()
    assert job["device_hours"] == pytest.approx(1, abs=0.01)
    assert Decimal(job["cost"]["accrued"]) == pytest.approx(Decimal("0.3"), abs=Decimal("0.001"))
    assert Decimal(job["cost"]["projected"]) == pytest.approx(Decimal("1.2"), abs=Decimal("0.001"))
    known = {"If-None-Match": after.headers["etag"]}
    assert client.get(f"/v1/jobs/{job_id}", headers=known).status_code == 304


LEFT: list[tuple[dict[str, Any], float, Reason]] = [
    ({"compute": {"max_hours": 3, "profile": "cpu"}}, 2, Reason.TIME_LIMIT),
    ({"budget": {"max_device_hours": 3}, "compute": {"profile": "cpu"}}, 2, Reason.BUDGET_EXHAUSTED),
    ({"budget": {"max_cost": "0.90"}, "compute": {"profile": "cpu"}}, 2, Reason.BUDGET_EXHAUSTED),
    ({"budget": {"max_cost": "0.90"}, "compute": {"profile": "free"}}, 23, Reason.TIME_LIMIT),
    ({"budget": {"max_cost": 9, "max_device_hours": 2}, "compute": {"max_hours": 5}}, 1, Reason.BUDGET_EXHAUSTED),
]


def test_the_ticket_says_how_long_the_devices_may_still_be_held(client: httpx2.Client, control: Control) -> None:
    for spec, left_hours, reason in LEFT:
        _, first = running(client, control, **spec)
        ended(client, control, first, Reason.WORKER_SHUTDOWN, 1)
        control.dispatcher.dispatch()
        second = control.attempts()[-1]
        ticket = next(one for one in tickets(control) if one.attempt_id == second.id)
        assert (ticket.attempt, ticket.ends_because) == (2, reason), spec
        assert ticket.train_seconds == pytest.approx(left_hours * HOUR, abs=60)
        control.report(second, CLAIMED, finished(Reason.COMPLETED))


def test_two_devices_use_device_hours_twice_as_fast(client: httpx2.Client, control: Control) -> None:
    client.post("/v1/jobs", json={**SPEC, "compute": {"profile": "pair"}, "budget": {"max_device_hours": 3}})
    control.heartbeat(slots=2)
    control.dispatcher.dispatch()
    attempt = control.attempts()[-1]
    assert tickets(control)[0].train_seconds == pytest.approx(1.5 * HOUR)
    control.report(attempt, CLAIMED, STARTED)
    job = ended(client, control, attempt, Reason.WORKER_SHUTDOWN, 1)
    assert job["device_hours"] == pytest.approx(2, abs=0.01)


def test_a_budget_that_is_used_up_ends_the_job_before_the_next_attempt(client: httpx2.Client, control: Control) -> None:
    job_id, attempt = running(client, control, budget={"max_cost": "0.30"})
    control.report(attempt, checkpoint(3, "p/3"))
    job = ended(client, control, attempt, Reason.WORKER_SHUTDOWN, 1)
    assert (job["status"], job["reason"]) == ("failed", "budget_exhausted")
    assert job["error"]["message"] == "budget.max_cost is used up; the last checkpoint is kept"
    assert "budget.max_cost" in job["error"]["hint"]
    kinds = [event["type"] for event in client.get(f"/v1/jobs/{job_id}/events").json()["data"]]
    assert kinds[-2:] == ["budget.exhausted", "job.failed"]
    assert client.get(f"/v1/jobs/{job_id}/checkpoints").json()["data"][0]["step"] == 3
    control.dispatcher.dispatch()
    assert len(control.attempts()) == 1


def test_a_paused_job_without_budget_ends_when_it_is_resumed(client: httpx2.Client, control: Control) -> None:
    job_id, attempt = running(client, control, compute={"max_hours": 1})
    client.post(f"/v1/jobs/{job_id}/pause")
    assert ended(client, control, attempt, Reason.PAUSED_BY_CLIENT, 1)["status"] == "paused"
    client.post(f"/v1/jobs/{job_id}/resume")
    control.dispatcher.dispatch()
    job = job_of(client, job_id)
    assert (job["status"], job["reason"], len(control.attempts())) == ("failed", "time_limit", 1)


def test_the_worker_that_ends_a_training_in_time_leaves_a_failed_job_with_a_way_out(
    client: httpx2.Client, control: Control
) -> None:
    job_id, attempt = running(client, control, budget={"max_device_hours": 1})
    control.report(attempt, checkpoint(3, "p/3"), finished(Reason.BUDGET_EXHAUSTED, message="the budget is used up"))
    job = job_of(client, job_id)
    assert (job["status"], job["error"]["code"]) == ("failed", "budget_exhausted")
    assert "model.weights" in job["error"]["hint"]


def test_a_job_near_its_limit_is_warned_of_once(client: httpx2.Client, control: Control) -> None:
    job_id, attempt = running(client, control, budget={"max_cost": "0.30"})
    let_pass(control, attempt, 0.7)
    control.heartbeat(attempt.id)
    assert client.get(f"/v1/jobs/{job_id}/events?types=budget.warning").json()["data"] == []
    let_pass(control, attempt, 0.15)
    for _ in range(2):
        control.heartbeat(attempt.id)
    [event] = client.get(f"/v1/jobs/{job_id}/events?types=budget.warning").json()["data"]
    assert (event["level"], event["data"]["limit"]) == ("warning", "budget.max_cost")
    assert event["message"].startswith("85% of budget.max_cost")
    assert Decimal(event["data"]["cost"]) == pytest.approx(Decimal("0.255"), abs=Decimal("0.001"))


def test_a_profile_without_a_price_makes_a_cost_limit_a_warning(client: httpx2.Client) -> None:
    for name, warned in (("free", True), ("cpu", False), ("auto", False)):
        spec = {**SPEC, "budget": {"max_cost": "1"}, "compute": {"profile": name}}
        warnings = client.post("/v1/jobs?validate_only=true", json=spec).json()["warnings"]
        assert any("budget.max_cost" in text for text in warnings) == warned
    job = client.post("/v1/jobs", json={**SPEC, "compute": {"profile": "free"}}).json()
    assert job["cost"] is None


def test_money_is_never_a_float(client: httpx2.Client, control: Control) -> None:
    for wrong in ("NaN", "0", "-1", "1.00001", "much"):
        answer = client.post("/v1/jobs", json={**SPEC, "budget": {"max_cost": wrong}})
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/budget/max_cost")
    job = client.post("/v1/jobs", json={**SPEC, "budget": {"max_cost": 0.1}, "compute": {"profile": "cpu"}}).json()
    assert (job["spec"]["budget"]["max_cost"], job["cost"]["limit"]) == ("0.1", "0.1000")
    control.heartbeat()
    answer = client.post("/v1/plans?train_images=100000", json={**SPEC, "compute": {"profile": "pair"}}).json()
    assert answer["cost"] is None  # no worker has two slots
    answer = client.post("/v1/plans?train_images=100000", json={**SPEC, "compute": {"profile": "cpu"}}).json()
    low, high = Decimal(answer["cost"]["low"]), Decimal(answer["cost"]["high"])
    assert 0 < low < high
    assert answer["cost"]["currency"] == "EUR"
