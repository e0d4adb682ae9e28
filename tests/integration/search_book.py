"""A search in the book, driven by hand: its trials by the tuner's doors, its attempts by a host's reports."""

from __future__ import annotations

import json
import math
from base64 import b64decode
from datetime import timedelta
from typing import Any

import httpx2
from sqlalchemy import select, update

from api.book import studies
from api.book.locks import lock_job
from api.book.models import Attempt, Event, Job, RungValue, Trial
from tests.integration.conftest import SPEC, Control
from training_core.contract import reports
from training_core.contract.errors import Reason
from training_core.contract.messages import Ticket

RATE = "training.optimizer.learning_rate"
SEARCH: dict[str, Any] = {"space": {RATE: {"type": "float", "low": 1e-4, "high": 1e-1, "log": True}}, "trials": 8}
CLAIMED = reports.Claimed(worker="host-a", incarnation="one")
READY = reports.DataReady(
    dataset_version="v1", classes=["cat", "dog"], images={"train": 90, "validation": 10}, prepared="made", seconds=1.0
)
STARTED = reports.Started()


class Book:
    """One search and what a test does to it."""

    def __init__(self, client: httpx2.Client, control: Control, **spec: Any) -> None:
        self.client, self.control = client, control
        answer = client.post("/v1/jobs", json={**SPEC, "search": SEARCH, **spec})
        assert answer.status_code == 202, answer.text
        self.id = str(answer.json()["id"])

    def add(self, rate: float, *, rung: int | None = 0, until: float | None = 0.25) -> int:
        with self.control.sessions.begin() as session:
            job = lock_job(session, self.id)
            return studies.add_trial(session, job, {RATE: rate}, "random", rung=rung, until=until).number

    def promote(self, trial: int, *, rung: int | None = 1, until: float | None = 0.5, **more: Any) -> None:
        with self.control.sessions.begin() as session:
            job = lock_job(session, self.id)
            studies.promote(session, job, trial, rung=rung, until=until, why="best of 2", **more)

    def prune(self, trial: int, why: str = "worse than 3 others") -> None:
        with self.control.sessions.begin() as session:
            studies.prune(session, lock_job(session, self.id), trial, why)

    def note(self, **study: Any) -> None:
        with self.control.sessions.begin() as session:
            studies.note(session, lock_job(session, self.id), study, None)

    def end(self, reason: Reason, message: str = "over") -> None:
        with self.control.sessions.begin() as session:
            studies.end(session, lock_job(session, self.id), reason, message)

    def booked(self, trial: int) -> Attempt:
        """The newest attempt of the trial, after a pass of the dispatcher."""
        self.control.dispatcher.dispatch()
        return [one for one in self.control.attempts() if one.trial == trial][-1]

    def trains(self, trial: int, *, resumed: int = 0) -> Attempt:
        attempt = self.booked(trial)
        self.control.report(attempt, CLAIMED, READY, reports.Started(resumed_from_step=resumed))
        return attempt

    def reaches(self, attempt: Attempt, value: float, *, rung: int = 0, fraction: float = 0.25) -> None:
        """The attempt comes to its rung, with a checkpoint, and ends."""
        step = int(fraction * 100)
        reached = reports.RungReached(
            rung=rung, fraction=fraction, step=step, epoch=1, images=512, values={"validation/accuracy": value}
        )
        self.control.report(attempt, self.saved(attempt, step), reached, finished(Reason.RUNG_REACHED, 10))

    def completes(self, attempt: Attempt, value: float = math.nan, **metrics: float) -> None:
        found = metrics or {"validation/accuracy": value}
        summary = reports.Summary(
            metrics=found, best_step=100, best_checkpoint=None, seconds={}, images_seen=900, images_per_second=300.0
        )
        self.control.report(attempt, self.saved(attempt, 100), summary, finished(Reason.COMPLETED, 40))

    def long_ago(self, attempt: Attempt, hours: float = 100) -> None:
        """As if it had been booked then: no attempt has used its devices for longer."""
        earlier = Attempt.booked_at - timedelta(hours=hours)
        with self.control.sessions.begin() as session:
            session.execute(update(Attempt).where(Attempt.id == attempt.id).values(booked_at=earlier))

    def saved(self, attempt: Attempt, step: int) -> reports.CheckpointSaved:
        return reports.CheckpointSaved(
            path=f"jobs/{self.id}/trial-{attempt.trial}/attempt-{attempt.number}/step-{step:08d}", step=step, epoch=1,
            metrics={}, size_bytes=10, kept_because="last", files={"model.safetensors": 10},
            sha256={"model.safetensors": "0" * 64},
        )  # fmt: skip

    def trial(self, number: int) -> Trial:
        with self.control.sessions() as session:
            return session.get_one(Trial, (self.id, number))

    def states(self, *trials: int) -> list[tuple[str, str]]:
        return [(self.trial(number).status, self.trial(number).reason) for number in trials]

    def job(self) -> Job:
        with self.control.sessions() as session:
            return session.get_one(Job, self.id)

    def rungs(self, trial: int) -> list[RungValue]:
        with self.control.sessions() as session:
            query = select(RungValue).where(RungValue.job_id == self.id, RungValue.trial == trial)
            return list(session.scalars(query.order_by(RungValue.rung)))

    def events(self, trial: int | None = None) -> list[str]:
        """Types in their order: those of the search as a whole, or of one trial."""
        query = select(Event.type).where(Event.job_id == self.id, Event.trial.is_not_distinct_from(trial))
        with self.control.sessions() as session:
            return list(session.scalars(query.order_by(Event.seq)))

    def tickets(self) -> list[Ticket]:
        return tickets(self.control)


def tickets(control: Control) -> list[Ticket]:
    """What lies in the host's queue, by the time at which it was sent."""
    found = control.redis.lrange("host.host-a", 0, -1)
    bodies = [json.loads(b64decode(json.loads(message)["body"]))[0][0] for message in found]  # type: ignore[union-attr]
    return [Ticket.model_validate(body) for body in reversed(bodies)]


def finished(reason: str, held_seconds: float | None = None, **more: Any) -> reports.Finished:
    return reports.Finished(reason=reason, phase="running", held_seconds=held_seconds, **more)
