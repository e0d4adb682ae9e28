"""A search with its tuner, and a host that brings every attempt to where it goes."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import httpx2
from sqlalchemy import select, update

from api.book.models import Attempt, Job, Trial
from api.control.tuner import Tuner
from api.profiles import Profiles
from api.settings import Settings
from tests.integration.conftest import Control
from tests.integration.search_book import CLAIMED, RATE, READY, STARTED, Book, finished
from training_core.contract.errors import Reason

SPACE: dict[str, Any] = {
    RATE: {"type": "float", "low": 1e-4, "high": 1.0, "log": True},
    "training.batch_size": {"type": "int", "low": 32, "high": 256, "step": 32},
}
SMALL = {
    "training.optimizer.name": {"type": "categorical", "choices": ["sgd", "adamw"]},
    "training.batch_size": {"type": "int", "low": 32, "high": 96, "step": 32},
}
METRIC = "validation/accuracy"

Outcome = Callable[[Trial], float | str]


def good(trial: Trial) -> float:
    """Better with the length of the training, best at a rate of 0.01."""
    rate = float(trial.parameters.get(RATE, 0.01))
    return 0.9 - abs(math.log10(rate) + 2) / 10 - 0.1 * (1 - (trial.until or 1.0))


class Study(Book):
    """A search with its tuner, and a host of four slots that brings every attempt to where it goes at once."""

    def __init__(
        self, client: httpx2.Client, control: Control, settings: Settings, search: dict[str, Any], **spec: Any
    ) -> None:
        control.heartbeat(slots=4)
        super().__init__(client, control, search={"space": SPACE, **search}, compute={"share": 1.0}, **spec)
        self.tuner = Tuner(control.sessions, Profiles.load(settings.profiles_file), settings)

    def tune(self) -> None:
        self.tuner.tune(self.id)

    def open(self) -> list[Attempt]:
        self.control.heartbeat(slots=4)
        self.control.dispatcher.dispatch()
        with self.control.sessions() as session:
            mine = select(Attempt).where(Attempt.job_id == self.id, Attempt.finished_at.is_(None))
            return list(session.scalars(mine.order_by(Attempt.trial)))

    def come(self, attempt: Attempt, outcome: Outcome = good) -> None:
        """The attempt's trial reaches its rung or its end with a value, or fails with a message.

        It was booked a while ago: no attempt is charged for longer than that.
        """
        with self.control.sessions.begin() as session:
            longer = update(Attempt).where(Attempt.id == attempt.id)
            session.execute(longer.values(booked_at=Attempt.booked_at - timedelta(minutes=5)))
        self.control.report(attempt, CLAIMED, READY, STARTED)
        trial = self.trial(attempt.trial)
        value = outcome(trial)
        if isinstance(value, str):
            self.control.report(attempt, finished(Reason.OUT_OF_MEMORY, 5, message=value, hint="smaller batches"))
        elif trial.rung is None:
            self.completes(attempt, value)
        else:
            self.reaches(attempt, value, rung=trial.rung, fraction=trial.until or 1.0)

    def turn(self, outcome: Outcome = good) -> bool:
        """A pass of the tuner, and all that is booked comes to its end; False once the search is over."""
        self.tune()
        for attempt in self.open():
            self.come(attempt, outcome)
        return self.job().finished_at is None

    def play(self, outcome: Outcome = good, turns: int = 200) -> Job:
        for _ in range(turns):
            if not self.turn(outcome):
                return self.job()
        raise AssertionError("the search does not end")

    def trials(self) -> list[Trial]:
        with self.control.sessions() as session:
            return list(session.scalars(select(Trial).where(Trial.job_id == self.id).order_by(Trial.number)))

    def points(self) -> list[tuple[tuple[str, Any], ...]]:
        return [tuple(sorted(one.parameters.items())) for one in self.trials()]
