"""Pause and resume: a wish until the worker settles, a status afterwards, and never in the way of an end."""

from __future__ import annotations

from typing import Any

import httpx2

from api.book.models import Attempt
from tests.integration.conftest import SPEC, Control
from tests.integration.test_control import CLAIMED, STARTED, checkpoint, dispatched, finished, job_of, metric
from tests.waiting import eventually
from training_core.contract import reports
from training_core.contract.errors import Reason
from training_core.contract.messages import WISHES_HASH, Wish

PAUSED = finished(Reason.PAUSED_BY_CLIENT)


def ask(client: httpx2.Client, job_id: str, action: str) -> dict[str, Any]:
    answer = client.post(f"/v1/jobs/{job_id}/{action}")
    assert answer.status_code == 202, answer.text
    body: dict[str, Any] = answer.json()
    return body


def wish(control: Control, attempt: Attempt) -> bytes | None:
    control.dispatcher.dispatch()
    found: bytes | None = control.redis.hget(WISHES_HASH, attempt.id)
    return found


def kinds(client: httpx2.Client, job_id: str) -> list[str]:
    return [event["type"] for event in client.get(f"/v1/jobs/{job_id}/events").json()["data"]]


def running(client: httpx2.Client, control: Control, **spec: Any) -> tuple[str, Attempt]:
    job_id, attempt = dispatched(client, control, **spec)
    control.report(attempt, CLAIMED, STARTED)
    return job_id, attempt


def test_a_queued_job_pauses_at_once_and_is_never_booked(client: httpx2.Client, control: Control) -> None:
    job_id = client.post("/v1/jobs", json=SPEC).json()["id"]
    for _ in range(2):
        job = ask(client, job_id, "pause")
        assert (job["status"], job["reason"], job["terminal"]) == ("paused", "paused_by_client", False)
        assert (job["actions"], job["queue"], job["pause_requested"]) == (["resume", "cancel"], None, False)
    control.heartbeat()
    control.dispatcher.dispatch()
    assert control.attempts() == []
    for _ in range(2):
        job = ask(client, job_id, "resume")
        assert (job["status"], job["reason"]) == ("queued", "resumed_by_client")
    control.dispatcher.dispatch()
    assert len(control.attempts()) == 1
    assert kinds(client, job_id) == ["job.created", "job.paused", "job.resumed"]


def test_a_running_job_gives_its_slot_back_and_resumes_from_its_checkpoint(
    client: httpx2.Client, control: Control
) -> None:
    job_id, first = running(client, control)
    control.report(first, metric(1, 1.0), metric(2, 2.0))
    job = ask(client, job_id, "pause")
    assert (job["status"], job["pause_requested"], job["actions"]) == ("running", True, ["resume", "cancel"])
    assert "checkpoint" in job["status_detail"]
    for _ in range(2):  # a flushed Redis forgets the wish; the book does not
        assert wish(control, first) == Wish.PAUSE.value.encode()
        control.redis.flushdb()
    control.report(first, checkpoint(2, "p/2"), PAUSED, first=5)
    job = job_of(client, job_id)
    assert (job["status"], job["pause_requested"], job["hosts"]) == ("paused", False, [])
    other = client.post("/v1/jobs", json=SPEC).json()["id"]
    control.dispatcher.dispatch()
    assert control.attempts()[-1].job_id == other
    ask(client, other, "cancel")
    control.report(control.attempts()[-1], CLAIMED, finished(Reason.CANCELLED_BY_CLIENT))
    ask(client, job_id, "resume")
    control.dispatcher.dispatch()
    second = control.attempts()[-1]
    assert (second.job_id, second.number, second.resume_from) == (job_id, 2, "p/2")
    resumed = reports.Started(resumed_from_step=2, checkpoint="p/2")
    control.report(second, CLAIMED, resumed, metric(3, 3.0), finished(Reason.COMPLETED))
    assert job_of(client, job_id)["status"] == "succeeded"
    series = client.get(f"/v1/jobs/{job_id}/metrics").json()["series"][0]
    assert (series["steps"], series["values"]) == ([1, 2, 3], [1.0, 2.0, 3.0])


def test_a_job_pauses_while_it_prepares(client: httpx2.Client, control: Control) -> None:
    job_id, attempt = dispatched(client, control)
    control.report(attempt, CLAIMED)
    assert "preparation" in ask(client, job_id, "pause")["status_detail"]
    control.report(attempt, reports.Finished(reason=Reason.PAUSED_BY_CLIENT, phase="preparing"))
    assert job_of(client, job_id)["status"] == "paused"
    events = client.get(f"/v1/jobs/{job_id}/events?types=job.paused").json()["data"]
    assert [event["message"] for event in events] == ["Paused before its first checkpoint"]


ENDS = {
    Reason.COMPLETED: "succeeded",
    Reason.EARLY_STOPPED: "succeeded",
    Reason.NAN_LOSS: "failed",
    Reason.PROCESS_DIED: "paused",
    Reason.WORKER_SHUTDOWN: "paused",
    Reason.NO_SLOT: "paused",
}


def test_a_pause_that_meets_another_end(client: httpx2.Client, control: Control) -> None:
    for reason, status in ENDS.items():
        job_id, attempt = running(client, control)
        ask(client, job_id, "pause")
        control.report(attempt, finished(reason, message="x"))
        assert (reason, job_of(client, job_id)["status"]) == (reason, status)


def test_a_worker_lost_while_it_should_pause_leaves_a_paused_job(client: httpx2.Client, control: Control) -> None:
    job_id, attempt = running(client, control)
    control.heartbeat(attempt.id)
    ask(client, job_id, "pause")
    eventually(lambda: control.janitor.look() or job_of(client, job_id)["status"] == "paused")
    control.heartbeat()
    control.dispatcher.dispatch()
    assert len(control.attempts()) == 1
    assert ask(client, job_id, "resume")["status"] == "queued"


def test_a_pause_taken_back_is_no_wish_any_more(client: httpx2.Client, control: Control) -> None:
    job_id, attempt = running(client, control)
    ask(client, job_id, "pause")
    assert wish(control, attempt) == b"pause"
    job = ask(client, job_id, "resume")
    assert (job["status"], job["pause_requested"], job["status_detail"]) == ("running", False, None)
    assert wish(control, attempt) is None
    # the worker had heard it, and stopped: nobody wants the pause now
    control.report(attempt, checkpoint(2, "p/2"), PAUSED)
    assert (job_of(client, job_id)["status"], job_of(client, job_id)["reason"]) == ("queued", "resumed_by_client")


def test_cancelling_goes_before_pausing(client: httpx2.Client, control: Control) -> None:
    paused = client.post("/v1/jobs", json=SPEC).json()["id"]
    ask(client, paused, "pause")
    job = ask(client, paused, "cancel")
    assert (job["status"], job["reason"]) == ("cancelled", "cancelled_by_client")
    job_id, attempt = running(client, control)
    ask(client, job_id, "pause")
    assert ask(client, job_id, "cancel")["actions"] == []
    assert wish(control, attempt) == b"stop"
    for action in ("pause", "resume"):
        refused = client.post(f"/v1/jobs/{job_id}/{action}")
        assert (refused.status_code, refused.json()["allowed_actions"]) == (409, [])
        assert "being cancelled" in refused.json()["detail"]
    control.report(attempt, PAUSED)
    assert job_of(client, job_id)["status"] == "cancelled"


def test_an_ended_job_and_a_dataset_check_cannot_pause(client: httpx2.Client, control: Control) -> None:
    job_id, attempt = running(client, control)
    control.report(attempt, finished(Reason.COMPLETED))
    for action in ("pause", "resume", "profile"):
        refused = client.post(f"/v1/jobs/{job_id}/{action}")
        assert (refused.status_code, refused.json()["code"]) == (409, "invalid_transition")
        assert refused.json()["allowed_actions"] == []
    check = client.post("/v1/dataset_checks", json={"task": SPEC["task"], "dataset": SPEC["dataset"]}).json()
    refused = client.post(f"/v1/dataset_checks/{check['id']}/pause")
    assert (refused.status_code, refused.json()["allowed_actions"]) == (409, ["cancel"])
    assert "Cancel it" in refused.json()["hint"]
    assert client.post(f"/v1/jobs/{check['id']}/pause").status_code == 404


def test_a_change_of_the_wishes_moves_the_etag_and_wakes_who_waits(client: httpx2.Client, control: Control) -> None:
    job_id, _ = running(client, control)
    tags = [client.get(f"/v1/jobs/{job_id}").headers["etag"]]
    for action in ("profile", "pause", "pause", "resume", "resume"):
        ask(client, job_id, action)
        tags.append(client.get(f"/v1/jobs/{job_id}").headers["etag"])
    assert len(set(tags)) == 4  # asking again changes nothing
    assert tags[2] == tags[3]
    assert tags[4] == tags[5]


def test_a_profile_is_wished_until_its_trace_is_there(client: httpx2.Client, control: Control) -> None:
    job_id, attempt = dispatched(client, control)
    early = client.post(f"/v1/jobs/{job_id}/profile")
    assert (early.status_code, early.json()["allowed_actions"]) == (409, ["cancel", "pause"])
    control.report(attempt, CLAIMED, STARTED)
    assert ask(client, job_id, "profile")["profile_requested"]
    assert wish(control, attempt) == Wish.PROFILE.value.encode()
    trace = reports.ArtifactSaved(
        path="jobs/x/trace", artifact="trace", format="chrome_trace", step=3, size_bytes=5,
        files={"trace.json.gz": 5}, sha256={"trace.json.gz": "0" * 64},
    )  # fmt: skip
    control.report(attempt, trace)
    assert not job_of(client, job_id)["profile_requested"]
    assert wish(control, attempt) is None
    assert "artifact.saved" in kinds(client, job_id)
