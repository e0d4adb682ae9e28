"""Who holds which slots: the one rule that the dispatcher, `/v1/workers`, `/v1/profiles` and the queue all count by.

Preparation runs before any device is held. An attempt holds its devices from the moment its data is ready; one whose
data was ready in an earlier attempt holds them from its booking on, as its preparation finds everything made. A
dataset check trains nothing and never holds any.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from api.book.models import Attempt, Job, Worker
from training_core.spec import Work

CHECKS_AT_ONCE = 2  # on one worker; a flood of checks must leave its threads and cores to the trainings


@dataclass(frozen=True)
class Booked:
    """An open attempt of a worker. `ready` says that its data is, so that it holds its devices."""

    job_id: str
    work: Work
    devices: int
    ready: bool


@dataclass
class Room:
    """What one worker has given away, and whether it can take more."""

    worker: Worker
    booked: list[Booked]

    @property
    def free(self) -> int:
        """Slots that nobody holds."""
        return max(0, self.worker.slots - self._held)

    @property
    def unclaimed(self) -> int:
        """Free slots that no preparing attempt is about to ask for; below 0 where they wait for each other."""
        return self.worker.slots - self._held - self._preparing

    @property
    def lends(self) -> bool:
        """Alive, and not about to go."""
        return self.worker.status == "online" and not self.worker.draining

    def takes(self, devices: int, *, ready: bool) -> bool:
        """Whether a job that needs `devices` fits in now.

        With its data ready it needs slots that are free. Without, it may prepare beside full slots, as long as those
        that prepare or wait for a slot ask together for no more than the worker has.
        """
        if ready:
            return devices <= self.worker.slots - self._held
        waiting = max(0, self._held - self.worker.slots)
        return self._preparing + waiting + devices <= self.worker.slots

    def takes_check(self) -> bool:
        return sum(one.work == "check" for one in self.booked) < CHECKS_AT_ONCE

    @property
    def _held(self) -> int:
        return sum(one.devices for one in self.booked if one.ready)

    @property
    def _preparing(self) -> int:
        return sum(one.devices for one in self.booked if not one.ready)


def rooms(session: Session) -> list[Room]:
    """Every worker that ever reported, by name."""
    ready = Attempt.data_ready_at.is_not(None) | Job.data_ready_at.is_not(None)
    query = select(Attempt.worker, Attempt.job_id, Job.work, Attempt.devices, ready)
    query = query.join(Job, Job.id == Attempt.job_id).where(Attempt.finished_at.is_(None))
    booked: dict[str, list[Booked]] = {}
    for worker, job_id, work, devices, is_ready in session.execute(query):
        booked.setdefault(worker, []).append(Booked(job_id, work, devices, is_ready))
    workers = session.scalars(select(Worker).order_by(Worker.name))
    return [Room(worker, booked.get(worker.name, [])) for worker in workers]
