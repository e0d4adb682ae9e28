"""Dispatcher, recorder and janitor against real PostgreSQL and Valkey; the test speaks the worker's part."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import httpx2
import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from api.book import lifecycle
from api.book.database import Sessions
from api.book.locks import StaleAttempt
from api.book.models import Attempt
from api.settings import Settings
from tests.integration.conftest import SPEC, Control
from tests.waiting import eventually
from training_core.contract import reports
from training_core.contract.errors import Reason
from training_core.contract.messages import RECORDED_HASH, WISHES_HASH, Ticket, Wish

CLAIMED = reports.Claimed(worker="host-a", incarnation="one")
STARTED = reports.Started()


def metric(step: int, value: float) -> reports.Metric:
    return reports.Metric(step=step, epoch=step / 10, values={"train/loss": value})


def checkpoint(step: int, path: str) -> reports.CheckpointSaved:
    return reports.CheckpointSaved(
        path=path, step=step, epoch=1, metrics={"validation/loss": 0.5}, size_bytes=10,
        kept_because="best", files={"model.safetensors": 10},
        sha256={"model.safetensors": sha256(b"0123456789").hexdigest()},
    )  # fmt: skip


def finished(reason: str, **more: Any) -> reports.Finished:
    return reports.Finished(reason=reason, phase="running", **more)


def dispatched(client: httpx2.Client, control: Control, **spec: Any) -> tuple[str, Attempt]:
    job = client.post("/v1/jobs", json={**SPEC, **spec}).json()
    control.heartbeat()
    control.dispatcher.dispatch()
    return job["id"], control.attempts()[-1]


def job_of(client: httpx2.Client, job_id: str) -> dict[str, Any]:
    job: dict[str, Any] = client.get(f"/v1/jobs/{job_id}").json()
    return job


def tickets(control: Control) -> list[Ticket]:
    """What lies in the host's queue, unpacked from Celery's envelope."""
    found = []
    for message in control.redis.lrange("host.host-a", 0, -1):
        body = json.loads(message)["body"]
        import base64

        found.append(Ticket.model_validate(json.loads(base64.b64decode(body))[0][0]))
    return found


def test_a_job_goes_from_the_queue_to_success(client: httpx2.Client, control: Control) -> None:
    job_id, attempt = dispatched(client, control)
    assert (job_of(client, job_id)["status"], len(tickets(control))) == ("preparing", 1)
    control.report(attempt, CLAIMED, STARTED, metric(1, 2.0), metric(2, math.nan), metric(3, 1.0), checkpoint(3, "a/b"))
    assert job_of(client, job_id)["status"] == "running"
    control.report(attempt, reports.FirstStep(step=1))
    phases = job_of(client, job_id)["phases"]
    assert phases["processes_up"] < phases["first_step"]  # both as the host timed them, however late they are recorded
    summary = reports.Summary(
        metrics={"test/accuracy": 0.9}, best_step=3, best_checkpoint="a/b", seconds={"train": 1.0}, images_seen=3,
        images_per_second=3.0,
    )  # fmt: skip
    control.report(attempt, summary, finished(Reason.COMPLETED))
    job = job_of(client, job_id)
    assert (job["status"], job["terminal"], job["reason"], job["actions"]) == ("succeeded", True, "completed", [])
    assert (job["result"]["metrics"], job["best"]["step"]) == ({"test/accuracy": 0.9}, 3)
    series = client.get(f"/v1/jobs/{job_id}/metrics").json()["series"][0]
    assert (series["steps"], series["values"]) == ([1, 2, 3], [2.0, "NaN", 1.0])
    events = client.get(f"/v1/jobs/{job_id}/events").json()["data"]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))


def test_repeated_and_reordered_reports_change_nothing(client: httpx2.Client, control: Control) -> None:
    job_id, attempt = dispatched(client, control)
    control.report(attempt, CLAIMED, STARTED, metric(1, 1.0))
    control.report(attempt, CLAIMED, STARTED, metric(1, 9.0), first=1)
    control.report(attempt, metric(5, 5.0), first=7)  # a gap: it must wait
    assert control.attempts_last_seq(attempt) == 3
    control.report(attempt, metric(2, 2.0), metric(3, 3.0), metric(4, 4.0), metric(5, 5.0), first=4)
    series = client.get(f"/v1/jobs/{job_id}/metrics").json()["series"][0]
    assert (series["steps"], series["values"]) == ([1, 2, 3, 4, 5], [1.0, 2.0, 3.0, 4.0, 5.0])


def test_a_lost_ticket_is_sent_again_until_it_is_claimed(client: httpx2.Client, control: Control) -> None:
    _, attempt = dispatched(client, control)
    control.redis.flushall()
    eventually(lambda: control.dispatcher.dispatch() or tickets(control))
    assert tickets(control)[0].attempt_id == attempt.id
    control.redis.delete("host.host-a")
    control.report(attempt, CLAIMED)
    control.dispatcher.dispatch()
    assert tickets(control) == []


def test_no_job_is_given_away_twice_and_none_beyond_the_slots(client: httpx2.Client, control: Control) -> None:
    for _ in range(3):
        client.post("/v1/jobs", json=SPEC)
    control.heartbeat(slots=2)
    for _ in range(3):
        control.dispatcher.dispatch()
    assert len(control.attempts()) == 2
    queued = client.get("/v1/jobs?status=queued").json()["data"]
    assert [job["queue"]["reason"][:35] for job in queued] == ["All slots for profile cpu are taken"]


def test_priority_goes_first(client: httpx2.Client, control: Control) -> None:
    client.post("/v1/jobs", json=SPEC)
    urgent = client.post("/v1/jobs", json={**SPEC, "priority": 9}).json()
    control.heartbeat()
    control.dispatcher.dispatch()
    assert [attempt.job_id for attempt in control.attempts()] == [urgent["id"]]


def test_a_draining_worker_gets_nothing(client: httpx2.Client, control: Control) -> None:
    client.post("/v1/jobs", json=SPEC)
    control.heartbeat(draining=True)
    control.dispatcher.dispatch()
    assert control.attempts() == []


def test_a_restarted_worker_loses_its_attempt_and_the_next_resumes(client: httpx2.Client, control: Control) -> None:
    job_id, first = dispatched(client, control)
    control.report(first, CLAIMED, STARTED, metric(1, 1.0), metric(2, 2.0), checkpoint(2, "p/2"), metric(3, 3.0))
    control.heartbeat(incarnation="two")
    job = job_of(client, job_id)
    assert (job["status"], job["reason"]) == ("queued", "worker_lost")
    control.dispatcher.dispatch()
    second = control.attempts()[-1]
    assert (second.number, second.resume_from) == (2, "p/2")
    control.report(
        second, CLAIMED, reports.Started(resumed_from_step=2, checkpoint="p/2"), metric(1, 1.0), metric(3, 3.5)
    )
    # whatever the old attempt still says is refused by its number, and acknowledged so that it falls silent
    control.report(first, metric(4, 99.0), finished(Reason.COMPLETED))
    series = client.get(f"/v1/jobs/{job_id}/metrics").json()["series"][0]
    assert (series["steps"], series["values"]) == ([1, 2, 3], [1.0, 2.0, 3.5])
    assert job_of(client, job_id)["status"] == "running"
    assert control.attempts_last_seq(first) == 8


def test_a_silent_worker_is_suspected_then_lost(client: httpx2.Client, control: Control) -> None:
    job_id, attempt = dispatched(client, control)
    control.report(attempt, CLAIMED, STARTED)
    control.heartbeat(attempt.id)
    status = lambda: client.get("/v1/workers").json()["data"][0]["status"]  # noqa: E731
    eventually(lambda: control.janitor.look() or status() == "suspected")
    assert "unreachable" in job_of(client, job_id)["status_detail"]
    eventually(lambda: control.janitor.look() or job_of(client, job_id)["status"] == "queued")
    assert status() == "lost"
    control.heartbeat(attempt.id)  # it was only away: it must drop what the book gave up
    assert control.redis.hget(WISHES_HASH, attempt.id) == Wish.ABANDON.value.encode()


def test_losses_without_progress_end_the_job(client: httpx2.Client, control: Control, settings: Settings) -> None:
    job_id, attempt = dispatched(client, control)
    for number in range(settings.losses_limit + 1):
        control.report(attempt, CLAIMED, STARTED, finished(Reason.PROCESS_DIED, exit_code=-9, message="killed"))
        if number < settings.losses_limit:
            assert job_of(client, job_id)["status"] == "queued"
            control.dispatcher.dispatch()
            attempt = control.attempts()[-1]
    job = job_of(client, job_id)
    assert (job["status"], job["reason"], job["error"]["exit_code"]) == ("failed", "retries_exhausted", -9)


def test_a_shutdown_costs_no_retry(client: httpx2.Client, control: Control, settings: Settings) -> None:
    job_id, attempt = dispatched(client, control)
    for _ in range(settings.losses_limit + 2):
        control.report(attempt, CLAIMED, STARTED, finished(Reason.WORKER_SHUTDOWN))
        assert job_of(client, job_id)["status"] == "queued"
        control.dispatcher.dispatch()
        attempt = control.attempts()[-1]


def test_cancelling_a_running_job_is_a_wish_until_the_worker_settles(client: httpx2.Client, control: Control) -> None:
    job_id, attempt = dispatched(client, control)
    control.report(attempt, CLAIMED, STARTED)
    answer = client.post(f"/v1/jobs/{job_id}/cancel").json()
    assert (answer["status"], answer["cancel_requested"], answer["actions"]) == ("running", True, [])
    for _ in range(2):  # a flushed Redis forgets the wish; the book does not
        control.dispatcher.dispatch()
        assert control.redis.hget(WISHES_HASH, attempt.id) == b"stop"
        control.redis.flushall()
    control.report(attempt, finished(Reason.CANCELLED_BY_CLIENT), first=3)
    assert job_of(client, job_id)["status"] == "cancelled"


def test_a_job_that_fails_in_preparing_says_why(client: httpx2.Client, control: Control) -> None:
    job_id, attempt = dispatched(client, control)
    end = reports.Finished(
        reason=Reason.IMAGE_CORRUPT, phase="preparing", message="cats/1.png is truncated", hint="mend it"
    )
    control.report(attempt, CLAIMED, end)
    job = job_of(client, job_id)
    assert (job["status"], job["reason"], job["error"]["phase"]) == ("failed", "image_corrupt", "preparing")
    assert job["error"] == {**job["error"], "message": "cats/1.png is truncated", "hint": "mend it"}
    assert client.post(f"/v1/jobs/{job_id}/cancel").json()["code"] == "invalid_transition"


def test_reports_that_cannot_be_read_or_stored_hold_nothing_up(client: httpx2.Client, control: Control) -> None:
    job_id, attempt = dispatched(client, control)
    control.report(attempt, CLAIMED, STARTED, reports.AlertRaised(alert="x", message="nul \0 here"), metric(1, 1.0))
    stream_fields = {"attempt": attempt.id, "job": job_id, "line": '{"seq": 5, "kind": "from_the_future"}'}
    control.redis.xadd("trainyard:reports", stream_fields)  # type: ignore[arg-type]
    control.recorder.record_batch()
    control.report(attempt, metric(2, 2.0), first=6)
    assert control.attempts_last_seq(attempt) == 6
    assert client.get(f"/v1/jobs/{job_id}/metrics").json()["series"][0]["steps"] == [1, 2]
    alerts = [e for e in client.get(f"/v1/jobs/{job_id}/events").json()["data"] if e["type"] == "alert.raised"]
    assert [alert["data"]["alert"] for alert in alerts] == ["unreadable_report", "unreadable_report"]


def test_unknown_attempts_are_acknowledged_so_that_they_fall_silent(control: Control) -> None:
    stranger = Attempt(id="att_unknown", job_id="job_unknown")
    control.report(stranger, CLAIMED, STARTED)
    assert control.redis.hget(RECORDED_HASH, "att_unknown") == b"2"
    assert control.redis.xlen("trainyard:reports") == 0


def test_a_long_series_is_thinned_without_losing_spikes(client: httpx2.Client, control: Control) -> None:
    job_id, attempt = dispatched(client, control)
    values = {700: 1e9, 701: math.nan, 1300: -1e9}
    lines = [metric(step, values.get(step, 1.0)) for step in range(1, 1501)]
    control.report(attempt, CLAIMED, STARTED, *lines, record=False)
    eventually(lambda: control.recorder.record_batch() == 0 if control.redis.xlen("trainyard:reports") == 0 else
               control.recorder.record_batch() < 0)  # fmt: skip
    full = client.get(f"/v1/jobs/{job_id}/metrics?points=5000").json()["series"][0]
    assert (full["steps"], full["downsampled"]) == (list(range(1, 1501)), False)
    thin = client.get(f"/v1/jobs/{job_id}/metrics?points=60").json()["series"][0]
    assert thin["downsampled"]
    assert len(thin["steps"]) <= 75
    assert {700, 701, 1300, 1500} <= set(thin["steps"])
    assert client.get(f"/v1/jobs/{job_id}/metrics?after=1498").json()["series"][0]["steps"] == [1499, 1500]


def test_the_tables_refuse_what_is_never_true(client: httpx2.Client, control: Control, sessions: Sessions) -> None:
    job_id, attempt = dispatched(client, control)
    for wrong in ("status = 'happy'", "finished_at = now()", "status = 'failed', finished_at = now(), error = NULL"):
        with pytest.raises(IntegrityError), sessions.begin() as session:
            session.execute(text(f"UPDATE jobs SET {wrong}"))
    control.report(attempt, CLAIMED, finished(Reason.TRAINING_ERROR, message="x"))
    with pytest.raises(IntegrityError, match="stays so"), sessions.begin() as session:
        session.execute(text("UPDATE jobs SET status = 'queued', finished_at = NULL"))
    with pytest.raises(StaleAttempt), sessions.begin() as session:
        lifecycle.start(session, session.get_one(Attempt, attempt.id), 0, datetime.now(UTC))
    assert job_of(client, job_id)["status"] == "failed"
