"""What a client sees of a job that has ended: the reason, and progress that leaves nothing to wait for."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from tests.integration.conftest import Control
from tests.integration.search_book import Book
from tests.integration.test_control import CLAIMED, STARTED, dispatched, finished, job_of
from training_core.contract import reports
from training_core.contract.errors import Reason

EARLY = reports.EarlyStopped(step=60, epoch=6.0, metric="validation/loss", best=0.7, best_step=30, patience=3)


def progress(step: int, fraction: float, eta_seconds: float) -> reports.Progress:
    return reports.Progress(
        step=step, epoch=step / 10, fraction=fraction, images_per_second=80.0, eta_seconds=eta_seconds
    )


def test_an_early_stop_is_told_by_job_trial_and_event(client: httpx2.Client, control: Control) -> None:
    job_id, attempt = dispatched(client, control)
    control.report(attempt, CLAIMED, STARTED, progress(40, 0.1, 63.0), progress(60, 1.0, 0.0), EARLY)
    assert job_of(client, job_id)["status"] == "running"
    control.report(attempt, finished(Reason.EARLY_STOPPED))
    job, trial = job_of(client, job_id), client.get(f"/v1/jobs/{job_id}/trials/0").json()
    for one in (job, trial):
        assert (one["status"], one["reason"]) == ("succeeded", "early_stopped")
        told = one["progress"]
        assert (told["step"], told["epoch"], told["fraction"], told["eta_seconds"]) == (60, 6.0, 1.0, 0.0)
    events = client.get(f"/v1/jobs/{job_id}/events").json()["data"]
    assert [one["type"] for one in events][-2:] == ["job.early_stopped", "job.succeeded"]
    assert events[-1]["data"]["reason"] == "early_stopped"
    assert events[-2]["data"]["step"] == 60


def test_a_target_is_not_told_as_patience(client: httpx2.Client, control: Control) -> None:
    job_id, attempt = dispatched(client, control)
    control.report(attempt, CLAIMED, STARTED, EARLY.model_copy(update={"target": 0.8}))
    event = client.get(f"/v1/jobs/{job_id}/events").json()["data"][-1]
    assert event["message"] == "validation/loss reached its target 0.8: 0.7 at step 30"


@pytest.mark.parametrize(
    ("reason", "status", "fraction"),
    [
        (Reason.COMPLETED, "succeeded", 1.0),
        (Reason.NAN_LOSS, "failed", 0.4),
        (Reason.TIME_LIMIT, "failed", 0.4),
        (Reason.BUDGET_EXHAUSTED, "failed", 0.4),
        (Reason.CANCELLED_BY_CLIENT, "cancelled", 0.4),
    ],
)
def test_no_end_leaves_time_to_wait_for(
    client: httpx2.Client, control: Control, reason: Reason, status: str, fraction: float
) -> None:
    """Also where the last word of the training was lost, and a moment before its end is all that is known."""
    job_id, attempt = dispatched(client, control)
    control.report(attempt, CLAIMED, STARTED, progress(40, 0.4, 63.0), finished(reason))
    job = job_of(client, job_id)
    assert (job["status"], job["progress"]["step"]) == (status, 40)
    assert (job["progress"]["fraction"], job["progress"]["eta_seconds"]) == (fraction, 0.0)


def test_a_paused_job_keeps_what_is_left(client: httpx2.Client, control: Control) -> None:
    job_id, attempt = dispatched(client, control)
    control.report(attempt, CLAIMED, STARTED, progress(40, 0.4, 63.0))
    client.post(f"/v1/jobs/{job_id}/pause")
    control.report(attempt, finished(Reason.PAUSED_BY_CLIENT))
    job = job_of(client, job_id)
    assert (job["status"], job["progress"]["eta_seconds"]) == ("paused", 63.0)


def test_a_trial_of_a_search_that_stopped_early_is_told_alike(client: httpx2.Client, control: Control) -> None:
    control.heartbeat()
    book = Book(client, control)
    number = book.add(0.1)
    attempt = book.trains(number)
    metrics: dict[str, Any] = {"validation/accuracy": 0.8, "validation/loss": 0.7}
    summary = reports.Summary(
        metrics=metrics, best_step=30, best_checkpoint=None, seconds={}, images_seen=1, images_per_second=1.0
    )
    control.report(attempt, progress(40, 0.1, 63.0), EARLY, summary, finished(Reason.EARLY_STOPPED))
    trial = client.get(f"/v1/jobs/{book.id}/trials/{number}").json()
    assert (trial["status"], trial["reason"], trial["reached"]) == ("succeeded", "early_stopped", 1.0)
    assert (trial["progress"]["fraction"], trial["progress"]["eta_seconds"]) == (1.0, 0.0)
    assert "trial.early_stopped" in book.events(number)
