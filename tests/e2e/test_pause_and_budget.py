"""A job that gives its devices back, or has to: the pause shows in no curve, and the budget ends in a checkpoint."""

from __future__ import annotations

from typing import Any

from tests.e2e.conftest import SPEC, Service
from tests.waiting import eventually

Curves = dict[str, tuple[list[int], list[float]]]
BUDGET_SECONDS = 8


def ask(service: Service, job_id: str, action: str) -> dict[str, Any]:
    with service.http() as http:
        answer = http.post(f"/v1/jobs/{job_id}/{action}")
    assert answer.status_code == 202, answer.text
    job: dict[str, Any] = answer.json()
    return job


def test_a_paused_and_resumed_job_ends_with_the_curves_of_an_undisturbed_one(
    service: Service, reference: Curves
) -> None:
    job_id = service.submit(**SPEC)
    service.until(job_id, "checkpoint.saved")
    ask(service, job_id, "pause")
    eventually(lambda: service.get(f"/v1/jobs/{job_id}")["status"] == "paused", 60, 0.1)
    eventually(lambda: not service.trainings(), 10)
    assert service.get("/v1/workers")["data"][0]["slots_free"] == 2
    assert service.get(f"/v1/jobs/{job_id}")["reason"] == "paused_by_client"
    ask(service, job_id, "resume")
    job = service.ended(job_id)
    assert (job["status"], job["attempt"]) == ("succeeded", 2), job
    started = [event["data"] for event in service.events(job_id) if event["type"] == "job.started"]
    assert started[1]["resumed_from_step"] > 0
    assert service.curves(job_id) == reference
    assert 0 < job["device_hours"] < 1


def test_a_budget_that_runs_out_ends_in_a_checkpoint(service: Service) -> None:
    endless = {**SPEC, "training": {**SPEC["training"], "epochs": 5000}}  # type: ignore[dict-item]
    job_id = service.submit(**endless, budget={"max_device_hours": BUDGET_SECONDS / 3600})
    job = service.ended(job_id)
    assert (job["status"], job["reason"]) == ("failed", "budget_exhausted"), job
    assert "model.weights" in job["error"]["hint"]
    [newest, *_] = service.get(f"/v1/jobs/{job_id}/checkpoints")["data"]
    assert newest["step"] > 0
    kinds = [event["type"] for event in service.events(job_id)]
    assert kinds[-2:] == ["budget.exhausted", "job.failed"]
    eventually(lambda: not service.trainings(), 10)
