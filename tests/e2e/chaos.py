"""A search whose services die around it, and what must be true of it all the same."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from tests.e2e.conftest import Service
from tests.waiting import eventually

ENDS = ("trial.completed", "trial.pruned", "trial.failed", "trial.cancelled")
STRETCHES = (*ENDS, "trial.paused")
MARGIN = 0.03  # of 90 validation images, less than three: trials side by side do not end in the same order twice
CONTROL_SECONDS, WORKER_SECONDS, FLUSH_SECONDS = 20.0, 30.0, 25.0
LOOK_SECONDS = 0.2
SEARCH_SECONDS = 900.0


@dataclass(frozen=True)
class Searched:
    """A search at its end: the job, its trials as `/trials/{n}` has them, its events, and who was killed how often."""

    job: dict[str, Any]
    trials: list[dict[str, Any]]
    events: list[dict[str, Any]]
    done_to_it: Counter[str]
    seconds: float

    @property
    def best(self) -> float:
        """The validation accuracy of the best trial."""
        return float(self.job["best"]["value"])

    def repeated(self) -> list[str]:
        """Parameters that more than one trial has."""
        points = Counter(json.dumps(one["parameters"], sort_keys=True) for one in self.trials)
        return [point for point, count in points.items() if count > 1]

    def ends_of(self, trial: dict[str, Any]) -> int:
        """How often the events tell of a trial's end."""
        return sum(one["trial"] == trial["number"] and one["type"] in ENDS for one in self.events)

    def faults(self, wanted: int) -> list[str]:
        """What is not as it must be, in words; nothing of a search of `wanted` trials that lost nothing."""
        return [*self._faults_of_job(wanted), *(fault for one in self.trials for fault in self._faults_of(one))]

    def _faults_of_job(self, wanted: int) -> Iterator[str]:
        if (self.job["status"], self.job["reason"]) != ("succeeded", "completed"):
            yield f"the job is {self.job['status']} ({self.job['reason']}): {self.job['error']}"
        if [one["number"] for one in self.trials] != list(range(wanted)):
            yield f"trials {[one['number'] for one in self.trials]} in place of {wanted}"
        yield from (f"{point} was trained more than once" for point in self.repeated())
        whole = [one for one in self.trials if one["value"] is not None]
        if not whole or self.best != max(one["value"] for one in whole):
            yield f"the best is {self.job['best']}, the best whole training is another"
        if [event["seq"] for event in self.events] != list(range(1, len(self.events) + 1)):
            yield "the events have gaps"

    def _faults_of(self, trial: dict[str, Any]) -> Iterator[str]:
        name = f"trial {trial['number']}"
        if trial["status"] not in ("succeeded", "pruned"):
            yield f"{name} is {trial['status']} ({trial['reason']}): {trial['error']}"
        if (ends := self.ends_of(trial)) != 1:
            yield f"{name} ended {ends} times"
        attempts = [one["number"] for one in trial["attempts"]]
        if attempts != list(range(1, trial["attempt"] + 1)):
            yield f"{name} has the attempts {attempts}, the last should be {trial['attempt']}"
        if any(one["finished_at"] is None for one in trial["attempts"]):
            yield f"{name} has an attempt that never ended"
        if trial["status"] == "pruned" and not trial["why"]:
            yield f"{name} was pruned without a why"


def search_spec(*, trials: int, epochs: int) -> dict[str, Any]:
    """On the small data of `conftest.py`, over a space of four parameters in which most points are bad."""
    space = {
        "training.optimizer.name": {"type": "categorical", "choices": ["adamw", "sgd"]},
        "training.optimizer.learning_rate": {"type": "float", "low": 1e-5, "high": 1.0, "log": True},
        "training.optimizer.weight_decay": {"type": "float", "low": 1e-5, "high": 1.0, "log": True},
        "training.label_smoothing": {"type": "float", "low": 0.0, "high": 0.5},
    }
    return {
        "dataset": {"uri": "file://small", "split": {"validation": 0.3}},
        "model": {"name": "small_cnn"},
        "compute": {"profile": "cpu"},
        "training": {"epochs": epochs, "batch_size": 32, "early_stopping": None, "augmentation": "none"},
        "search": {"space": space, "trials": trials, "parallel": 2, "seed": 3},
    }


def searched(service: Service, job_id: str, done_to_it: Counter[str], began: float) -> Searched:
    job = service.get(f"/v1/jobs/{job_id}")
    numbers = [one["number"] for page in _pages(service, f"/v1/jobs/{job_id}/trials?limit=100") for one in page]
    trials = [service.get(f"/v1/jobs/{job_id}/trials/{number}") for number in numbers]
    events = [one for page in _pages(service, f"/v1/jobs/{job_id}/events?limit=1000") for one in page]
    return Searched(job, trials, events, done_to_it, time.monotonic() - began)


def _pages(service: Service, path: str) -> Iterator[list[dict[str, Any]]]:
    after = ""
    while True:
        page = service.get(path + after)
        yield page["data"]
        if not page["has_more"]:
            return
        after = f"&after={page['next_cursor']}"


def undisturbed(service: Service, spec: dict[str, Any]) -> Searched:
    began = time.monotonic()
    job_id = service.submit(**spec)
    _until_over(service, job_id)
    return searched(service, job_id, Counter(), began)


def disturbed_in_turn(service: Service, spec: dict[str, Any], turns: dict[int, str]) -> Searched:
    """`turns` says what happens once so many stretches of trials have ended: the name of a service, or `flush`."""
    began = time.monotonic()
    job_id = service.submit(**spec)
    for count, victim in turns.items():
        eventually(partial(_have_ended, service, job_id, count), 60, LOOK_SECONDS)
        disturb(service, victim)
    _until_over(service, job_id)
    return searched(service, job_id, Counter(turns.values()), began)


def disturbed_by_the_clock(service: Service, spec: dict[str, Any]) -> Searched:
    """Control is killed every 20 s, the worker every 30 s, and Valkey flushed once."""
    began = time.monotonic()
    job_id = service.submit(**spec)
    every = {"control": CONTROL_SECONDS, "worker": WORKER_SECONDS, "flush": FLUSH_SECONDS}
    due = {victim: began + seconds for victim, seconds in every.items()}
    done_to_it: Counter[str] = Counter()
    while not service.get(f"/v1/jobs/{job_id}")["terminal"]:
        now = time.monotonic()
        assert now < began + SEARCH_SECONDS, service.get(f"/v1/jobs/{job_id}")
        for victim in [one for one, at in due.items() if at <= now]:
            disturb(service, victim)
            done_to_it[victim] += 1
            due[victim] = float("inf") if victim == "flush" else now + every[victim]
        time.sleep(LOOK_SECONDS)
    return searched(service, job_id, done_to_it, began)


def disturb(service: Service, victim: str) -> None:
    if victim == "flush":
        service.flush_redis()
        return
    service.kill(victim)
    service.start_again(victim)


def _have_ended(service: Service, job_id: str, count: int) -> bool:
    ended = service.get(f"/v1/jobs/{job_id}/events?limit=1000&types={','.join(STRETCHES)}")["data"]
    return len(ended) >= count


def _until_over(service: Service, job_id: str) -> None:
    began = time.monotonic()
    while not (job := service.get(f"/v1/jobs/{job_id}?wait=5&until=terminal"))["terminal"]:
        assert time.monotonic() < began + SEARCH_SECONDS, job
