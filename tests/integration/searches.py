"""A search with trials as its tuner and its workers would have written them, put into the book directly."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
from sqlalchemy.orm import Session

from api.book.database import Sessions
from api.book.models import Attempt, Checkpoint, Job, RungValue, Trial
from api.book.status import REASONS, TERMINAL
from tests.integration.conftest import SPEC
from training_core.contract.errors import Reason

RATE, LAYERS, NETWORK = "training.optimizer.learning_rate", "training.batch_size", "model.name"
ACCURACY, LOSS = "validation/accuracy", "validation/loss"
SPACE: dict[str, Any] = {
    RATE: {"type": "float", "low": 1e-5, "high": 0.1, "log": True},
    LAYERS: {"type": "int", "low": 16, "high": 256},
    NETWORK: {"type": "categorical", "choices": ["small_cnn", "small_resnet"]},
}
START = datetime(2026, 11, 24, tzinfo=UTC)


def submit(client: httpx2.Client, **search: Any) -> str:
    answer = client.post("/v1/jobs", json={**SPEC, "search": {"space": SPACE, **search}})
    assert answer.status_code == 202, answer.text
    job_id: str = answer.json()["id"]
    return job_id


def parameters(number: int) -> dict[str, Any]:
    """Different for each number; the rate falls with it."""
    return {RATE: 0.1 / (number + 1), LAYERS: 16 + number % 200, NETWORK: ("small_cnn", "small_resnet")[number % 2]}


class Book:
    """Writes trials of one search; each one that ended had one attempt of ten seconds on one device."""

    def __init__(self, sessions: Sessions, job_id: str) -> None:
        self.sessions, self.job_id = sessions, job_id

    def trial(
        self, number: int, reason: Reason = Reason.COMPLETED, values: dict[str, float] | None = None,
        rungs: dict[int, float] | None = None, **more: Any,
    ) -> None:  # fmt: skip
        """`rungs` are accuracies by rung; rung n lies at a fraction of (n + 1) / 10."""
        status = REASONS[reason].status
        ended = status in TERMINAL
        facts = {"parameters": parameters(number), "origin": "random", "reached": 1.0 if values else 0.0, **more}
        with self.sessions.begin() as session:
            session.add(
                Trial(
                    job_id=self.job_id, number=number, status=status, reason=reason, values=values, attempt=int(ended),
                    started_at=START + timedelta(seconds=20 * number) if ended else None,
                    finished_at=START + timedelta(seconds=20 * number + 10) if ended else None, **facts,
                )
            )  # fmt: skip
            session.flush()
            for rung, value in (rungs or {}).items():
                session.add(
                    RungValue(
                        job_id=self.job_id, trial=number, rung=rung, attempt=1, fraction=(rung + 1) / 10,
                        step=100 * (rung + 1), images=512, values={ACCURACY: value},
                    )
                )  # fmt: skip
            if ended:
                self._attempt(session, number)

    def _attempt(self, session: Session, number: int) -> None:
        start = START + timedelta(seconds=20 * number)
        session.add(
            Attempt(
                id=f"att_{self.job_id}_{number}", job_id=self.job_id, trial=number, number=1, worker="host-a",
                incarnation="one", device="cpu", devices=1, booked_at=start, started_at=start,
                finished_at=start + timedelta(seconds=10), reason="completed", held_seconds=10.0,
                training_seconds=8.0, evaluation_seconds=1.5,
            )
        )  # fmt: skip

    def checkpoint(self, number: int, step: int, kept_because: str = "best") -> str:
        name = f"ckpt_{self.job_id}_{number}_{step}"
        with self.sessions.begin() as session:
            session.add(
                Checkpoint(
                    id=name, job_id=self.job_id, trial=number, attempt=1, path=f"jobs/{name}", step=step, epoch=1.0,
                    metrics={}, size_bytes=1, files={}, sha256={}, kept_because=kept_because,
                )
            )  # fmt: skip
        return name

    def note(self, status: str = "running", **study: Any) -> None:
        """What the tuner notes, and where the search is."""
        with self.sessions.begin() as session:
            job = session.get_one(Job, self.job_id)
            job.study, job.version = study, job.version + 1
            job.status, job.reason = status, "completed" if status == "succeeded" else "training"
            job.finished_at = START if status == "succeeded" else None
