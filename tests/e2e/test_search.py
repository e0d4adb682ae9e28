"""A search through the real service: every trial ends once, the promising ones go on, and what was found stays."""

from __future__ import annotations

from collections import Counter
from typing import Any

from tests.e2e.conftest import SPEC, Service
from tests.e2e.test_pause_and_budget import ask
from tests.waiting import eventually

TRIALS = 8
ENDS = {"trial.completed", "trial.pruned", "trial.failed", "trial.cancelled"}
OPTIMIZER = "training.optimizer"


def search(epochs: int, **changes: Any) -> dict[str, Any]:
    space = {
        f"{OPTIMIZER}.learning_rate": {"type": "float", "low": 1e-4, "high": 3e-2, "log": True},
        f"{OPTIMIZER}.name": {"type": "categorical", "choices": ["adamw", "sgd"]},
    }
    pruner = {"name": "halving", "reduction_factor": 2, "first_rung": 0.25}
    training = {**SPEC["training"], "epochs": epochs, "augmentation": "none"}  # type: ignore[dict-item]
    asked = {"space": space, "trials": TRIALS, "parallel": 4, "pruner": pruner, "seed": 1, "finish": "continue"}
    return {**SPEC, "compute": {"profile": "cpu", "share": 0.5}, "training": training, "search": asked | changes}


def trials_of(service: Service, job_id: str) -> list[dict[str, Any]]:
    """By number; numbers have no gap."""
    found: list[dict[str, Any]] = service.get(f"/v1/jobs/{job_id}/trials?limit=100")["data"]
    found.sort(key=lambda trial: trial["number"])
    assert [trial["number"] for trial in found] == list(range(len(found)))
    return found


def ends(service: Service, job_id: str) -> Counter[int]:
    """How often each trial ended."""
    return Counter(one["trial"] for one in service.events(job_id) if one["type"] in ENDS)


def test_a_search_ends_each_trial_once_and_shows_the_best(service: Service) -> None:
    job = service.ended(service.submit(**search(epochs=4)))
    assert job["status"] == "succeeded", job
    trials = trials_of(service, job["id"])
    assert len(trials) == TRIALS
    assert {trial["status"] for trial in trials} == {"succeeded", "pruned"}
    assert ends(service, job["id"]) == Counter(range(TRIALS))
    assert len({str(trial["parameters"]) for trial in trials}) == TRIALS

    whole = {trial["number"]: trial["value"] for trial in trials if trial["status"] == "succeeded"}
    assert job["best"]["trial"] in whole
    assert job["best"]["value"] == max(whole.values())
    kept = [checkpoint["id"] for checkpoint in service.get(f"/v1/jobs/{job['id']}/checkpoints")["data"]]
    assert trials[job["best"]["trial"]]["checkpoint"] in kept
    assert all(trial["why"] and trial["reached"] < 1 for trial in trials if trial["status"] == "pruned")

    best = service.get(f"/v1/jobs/{job['id']}/trials/{job['best']['trial']}")
    assert [rung["rung"] for rung in best["rungs"]] == list(range(len(best["rungs"])))
    attempts = best["attempts"]
    assert len(attempts) == len(best["rungs"]) + 1, "it came to each rung once, and then to its end"
    assert attempts[0]["resumed_from"] is None
    assert all(one["resumed_from"].startswith("ckpt_") for one in attempts[1:])
    assert len({one["resumed_from"] for one in attempts}) == len(attempts)
    eventually(lambda: not service.trainings(), 10)
    eventually(lambda: service.get("/v1/workers")["data"][0]["slots_free"] == 2, 10)


def test_a_search_cancelled_in_the_middle_stays_readable(service: Service) -> None:
    job_id = service.submit(**search(epochs=40, trials=50))
    service.until(job_id, "trial.paused")
    ask(service, job_id, "cancel")
    job = service.ended(job_id)
    assert (job["status"], job["reason"]) == ("cancelled", "cancelled_by_client"), job
    trials = trials_of(service, job_id)
    assert 0 < len(trials) < 50
    assert all(trial["terminal"] and trial["why"] for trial in trials)
    assert ends(service, job_id) == Counter(range(len(trials)))
    assert any(trial["rungs"] for trial in trials)
    for trial in trials:
        assert service.get(f"/v1/jobs/{job_id}/trials/{trial['number']}")["spec"]["search"] is None
    eventually(lambda: not service.trainings(), 10)
    eventually(lambda: service.get("/v1/workers")["data"][0]["slots_free"] == 2, 10)
