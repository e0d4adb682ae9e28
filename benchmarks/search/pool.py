"""A pool of workers that carries out searches over the table of recorded trainings; its time is images trained on.

What is counted, the same for all: images trained on by all workers together until the best model at hand, of a whole
training or of a partial one as it is then, has a validation accuracy within `MARGIN` of the best training of the table.
A configuration that is asked for again costs nothing as far as it was trained before: in a real space, which has no
grid, it would not come twice.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any, Protocol

from benchmarks.search.courses import ACCURACY, Choice, Table
from training_core.contract.spec import Scalar

MARGIN = 0.003
WORKERS = 4


@dataclass(frozen=True)
class Work:
    """A stretch of one trial's training, by fractions of the whole."""

    trial: int
    choice: Choice
    first: float
    last: float


class Contender(Protocol):
    """A search method; it is asked whenever a worker is free."""

    def next(self) -> Work | None:
        """None while there is nothing to do until other work is done, and for good when none is under way."""

    def done(self, work: Work) -> None:
        """`work` has come to its end; its values are in the table."""


@dataclass(frozen=True)
class Found:
    """`images` and `steps` until the best was within the margin, infinite where it never was; `best` is the accuracy of
    the best model at the end; `spent` are the images trained on by then, `trials` those begun."""

    images: float
    steps: float
    best: float
    spent: float
    trials: int


@dataclass(frozen=True)
class Stretch:
    """Work as it was carried out, in time."""

    choice: Choice
    began: float
    images: float
    steps_per_image: float

    def done_by(self, time: float) -> float:
        return min(max(0.0, time - self.began), self.images)


class Pool:
    """`workers` of the same speed. `reached_at` is the time at which the accuracy `target` was first there."""

    def __init__(self, table: Table, target: float, workers: int) -> None:
        self._table, self._target, self._workers = table, target, workers
        self._busy: list[tuple[float, int, Work]] = []
        self._order = count()
        self._stretches: list[Stretch] = []
        self._furthest: dict[Choice, float] = {}
        self._trials: set[int] = set()
        self.now, self.reached_at = 0.0, math.inf

    @property
    def free(self) -> bool:
        return len(self._busy) < self._workers

    def start(self, work: Work) -> None:
        course = self._table.courses[work.choice]
        first = max(work.first, min(self._furthest.get(work.choice, 0.0), work.last))
        images = (work.last - first) * course.images
        self._furthest[work.choice] = max(self._furthest.get(work.choice, 0.0), work.last)
        self._trials.add(work.trial)
        self._stretches.append(Stretch(work.choice, self.now, images, course.steps / course.images))
        crossing = self._table.first_reaching(work.choice, self._target, first, work.last)
        if crossing is not None:
            self.reached_at = min(self.reached_at, self.now + (crossing - first) * course.images)
        heapq.heappush(self._busy, (self.now + images, next(self._order), work))

    def wait(self) -> Work | None:
        """The work that is done next."""
        if not self._busy:
            return None
        self.now, _, work = heapq.heappop(self._busy)
        return work

    def found(self) -> Found:
        by, reached = min(self.now, self.reached_at), math.isfinite(self.reached_at)
        images = [one.done_by(by) for one in self._stretches]
        steps = sum(each * one.steps_per_image for each, one in zip(images, self._stretches, strict=True))
        return Found(
            images=sum(images) if reached else math.inf,
            steps=steps if reached else math.inf,
            best=max(self._table.at(choice, last)[ACCURACY] for choice, last in self._furthest.items()),
            spent=sum(one.done_by(self.now) for one in self._stretches),
            trials=len(self._trials),
        )


def replay(table: Table, contender: Contender, *, workers: int = WORKERS, to_the_end: bool = False) -> Found:
    """Let it search until it is within the margin, or `to_the_end` of what it wants to do."""
    pool = Pool(table, table.oracle().accuracy[-1] - MARGIN, workers)
    while to_the_end or pool.now < pool.reached_at:
        while pool.free and (work := contender.next()) is not None:
            pool.start(work)
        finished = pool.wait()
        if finished is None:
            break
        contender.done(finished)
    return pool.found()


def ordered(values: list[Any]) -> bool:
    return not isinstance(values[0], str)


def space_of(table: Table) -> dict[str, dict[str, object]]:
    """Numbers are the places in their row of the grid, which rises evenly in its logarithm; words have no order."""
    return {
        path: {"type": "int", "low": 0, "high": len(values) - 1}
        if ordered(values)
        else {"type": "categorical", "choices": values}
        for path, values in table.grid.items()
    }


def choice_of(table: Table, parameters: Mapping[str, Scalar]) -> Choice:
    return tuple(
        int(str(parameters[path])) if ordered(values) else values.index(parameters[path])
        for path, values in table.grid.items()
    )
