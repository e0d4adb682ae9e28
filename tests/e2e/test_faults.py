"""What is killed, restarted or flushed in the middle of a job costs time, and nothing else.

Training on one rank is exact, so each disturbed job must show the very curves of the undisturbed one.
"""

from __future__ import annotations

from tests.e2e.conftest import SPEC, Service
from tests.waiting import eventually

Curves = dict[str, tuple[list[int], list[float]]]


def test_a_killed_worker_is_replaced_and_the_job_resumes_from_its_checkpoint(
    service: Service, reference: Curves
) -> None:
    job_id = service.submit(**SPEC)
    service.until(job_id, "checkpoint.saved")
    service.kill("worker")
    eventually(lambda: not service.trainings(), 5)  # no orphan rank
    service.start_again("worker")
    job = service.ended(job_id)
    assert (job["status"], job["attempt"]) == ("succeeded", 2), job
    started = [event["data"] for event in service.events(job_id) if event["type"] == "job.started"]
    assert started[0]["resumed_from_step"] == 0
    assert started[1]["resumed_from_step"] > 0
    assert service.curves(job_id) == reference


def test_killed_api_and_control_lose_nothing(service: Service, reference: Curves) -> None:
    job_id = service.submit(**SPEC)
    for name in ("control", "api", "control"):
        service.until(job_id, "job.started")
        service.kill(name)
        service.start_again(name)
    job = service.ended(job_id)
    assert (job["status"], job["attempt"]) == ("succeeded", 1), job
    assert service.curves(job_id) == reference


def test_a_flushed_redis_leaves_the_curve_whole(service: Service, reference: Curves) -> None:
    job_id = service.submit(**SPEC)
    for kind in ("job.preparing", "job.started", "checkpoint.saved"):
        service.until(job_id, kind)
        service.flush_redis()
    job = service.ended(job_id)
    assert (job["status"], job["attempt"]) == ("succeeded", 1), job
    assert service.curves(job_id) == reference


def test_two_ranks_train_and_die_with_their_worker(service: Service) -> None:
    spec = {**SPEC, "compute": {"profile": "cpu-2", "strategy": "ddp"}, "training": {**SPEC["training"], "epochs": 6}}  # type: ignore[dict-item]
    job_id = service.submit(**spec)
    service.until(job_id, "checkpoint.saved")
    assert len(service.trainings()) >= 3  # the launcher and two ranks
    service.kill("worker")
    eventually(lambda: not service.trainings(), 10)
    service.start_again("worker")
    job = service.ended(job_id)
    assert (job["status"], job["attempt"], job["plan"]["world_size"]) == ("succeeded", 2, 2), job


def test_a_cancelled_job_leaves_a_checkpoint_and_frees_its_slot(service: Service) -> None:
    job_id = service.submit(**{**SPEC, "training": {**SPEC["training"], "epochs": 2000}})  # type: ignore[dict-item]
    service.until(job_id, "job.started")
    with service.http() as http:
        assert http.post(f"/v1/jobs/{job_id}/cancel").status_code == 202
    job = service.ended(job_id)
    assert (job["status"], job["reason"]) == ("cancelled", "cancelled_by_client")
    assert service.get(f"/v1/jobs/{job_id}/checkpoints")["data"]
    eventually(lambda: not service.trainings(), 10)
    eventually(lambda: service.get("/v1/workers")["data"][0]["slots_free"] == 2, 10)
