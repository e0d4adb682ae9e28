"""Who holds which slots: the one rule that the dispatcher, `/v1/workers`, `/v1/profiles` and the queue all count by.

Preparation runs before any device is held. An attempt holds its devices from the moment its data is ready; one whose
data was ready in an earlier attempt holds them from its booking on, as its preparation finds everything made. A
dataset check trains nothing and never holds any.

A trial of a search may hold a part of one device. A search whose data is ready may have a few attempts more on a worker
than fit, so that a slot that comes free has its next trial at hand.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from api.book.models import Attempt, Job, Worker
from training_core.contract.spec import Work

AHEAD = 2  # attempts of one search on one worker that wait there for a slot
ROUNDING = 1e-6  # three thirds are one
CHECKS_AT_ONCE = 2  # on one worker; a flood of checks must leave its threads and cores to the trainings


@dataclass(frozen=True)
class Booked:
    """An open attempt of a worker, `size` devices large. `ready` says that its data is, so that it holds them."""

    job_id: str
    work: Work
    size: float
    ready: bool
    search: bool = False
    project_id: str = ""


@dataclass
class Room:
    """What one worker has given away, and whether it can take more."""

    worker: Worker
    booked: list[Booked]

    @property
    def free(self) -> int:
        """Slots that nobody holds, not even a part of them."""
        return max(0, math.floor(self.worker.slots - self._held + ROUNDING))

    @property
    def unclaimed(self) -> float:
        """Free slots that no preparing attempt is about to ask for; below 0 where they wait for each other."""
        return self.worker.slots - self._held - self._preparing

    @property
    def lends(self) -> bool:
        """Alive, and not about to go."""
        return self.worker.status == "online" and not self.worker.draining

    def takes(self, size: float, *, ready: bool, ahead: int = 0) -> bool:
        """Whether an attempt of that size fits in now, or is one of `ahead` that may wait for their slots.

        With its data ready it needs slots that are free. Without, it may prepare beside full slots, as long as those
        that prepare or wait for a slot ask together for no more than the worker has.
        """
        if ready:
            return size * (1 - ahead) <= self.worker.slots - self._held + ROUNDING and size <= self.worker.slots
        waiting = max(0.0, self._held - self._ahead - self.worker.slots)
        return self._preparing + waiting + size <= self.worker.slots + ROUNDING

    def takes_check(self) -> bool:
        return sum(one.work == "check" for one in self.booked) < CHECKS_AT_ONCE

    @property
    def _held(self) -> float:
        return sum(one.size for one in self.booked if one.ready)

    @property
    def _ahead(self) -> float:
        """How much of what is held searches may only be waiting for."""
        sizes = defaultdict[str, list[float]](list)
        for one in self.booked:
            if one.ready and one.search:
                sizes[one.job_id].append(one.size)
        return sum(sum(sorted(found)[1:][:AHEAD]) for found in sizes.values())

    @property
    def _preparing(self) -> float:
        return sum(one.size for one in self.booked if not one.ready)


def rooms(session: Session) -> list[Room]:
    """Every worker that ever reported, by name."""
    ready = Attempt.data_ready_at.is_not(None) | Job.data_ready_at.is_not(None)
    search = Job.spec["search"].astext.is_not(None)
    query = select(
        Attempt.worker, Attempt.job_id, Job.work, Attempt.devices * Attempt.share, ready, search, Job.project_id
    )
    query = query.join(Job, Job.id == Attempt.job_id).where(Attempt.finished_at.is_(None))
    booked: dict[str, list[Booked]] = {}
    for worker, *facts in session.execute(query):
        booked.setdefault(worker, []).append(Booked(*facts))
    workers = session.scalars(select(Worker).order_by(Worker.name))
    return [Room(worker, booked.get(worker.name, [])) for worker in workers]
