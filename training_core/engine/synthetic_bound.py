"""How fast the model alone is: a few steps of the training itself, on batches that were all fetched before.

The order of the batches and what is learned from them stay as they are, to the bit: only when they are fetched differs.
The idea is SPDL's "headspace" (a cache of batches in the place of the loader), without a step that would not count.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator

import torch

from training_core.engine.training import Training
from training_core.vision.prefetch import Batch, Loader

# Fetching stops the training for as long as so many steps take at most: these are 0.4 % of those that are left.
SHARE_OF_STEPS, FEWEST_STEPS, MOST_STEPS = 0.004, 4, 20
STEPS_BEFORE = 50
MOST_BYTES = 512 * 2**20


class HeldBack:
    """The batches of a training, some of them held back; afterwards `step_seconds` is a mean step without a loader.

    None in a run that is too short for it. `seconds` is what the fetching took.
    """

    def __init__(self, training: Training, batches: Iterator[Batch], pause: Callable[[], None]) -> None:
        """`pause` is called before the fetching, which is no step."""
        self._training, self._batches, self._pause = training, batches, pause
        self.steps = steps_held_back(training)
        self.step_seconds: float | None = None
        self.seconds = 0.0

    def __iter__(self) -> Iterator[Batch]:
        if self.steps == 0:
            yield from self._batches
            return
        for _ in range(STEPS_BEFORE):
            yield next(self._batches)
        fetched = self._fetch()
        started = self._steps_seconds()
        while fetched:
            yield fetched.popleft()
        self.step_seconds = (self._steps_seconds() - started) / self.steps
        yield next(self._batches)
        if isinstance(self._batches, Loader):
            self._batches.shrink()
        yield from self._batches

    def _fetch(self) -> deque[Batch]:
        self._pause()
        with self._training.clock.phase("other"):
            begun = time.perf_counter()
            fetched = self._fetch_all()
            self._training.ranks.sum(torch.zeros(1))  # all have theirs: nobody waits for it in a step
            self.seconds = time.perf_counter() - begun
        return fetched

    def _fetch_all(self) -> deque[Batch]:
        first = next(self._batches)
        fitting = MOST_BYTES // max(1, first.images.nbytes)
        self.steps = max(1, min(self.steps, fitting))
        more = self.steps - 1
        if isinstance(self._batches, Loader):
            return deque([first, *self._batches.fetch(more)])
        return deque([first, *(next(self._batches) for _ in range(more))])

    @property
    def lost_seconds(self) -> float:
        """What it cost at most: that steps and fetching did not overlap once."""
        return min(self.seconds, self.steps * self.step_seconds) if self.step_seconds is not None else 0.0

    def _steps_seconds(self) -> float:
        """Evaluations and checkpoints between two steps are not of them."""
        if self._training.ranks.device.type == "cuda":
            torch.cuda.synchronize()
        self._training.meter.lap("loop")
        return self._training.clock.steps_seconds()


def steps_held_back(training: Training) -> int:
    """0 where the run is too short, or where pictures grow during it: then no few steps speak for all."""
    plan = training.plan
    left = plan.total_steps - training.state.step
    steps = min(MOST_STEPS, int(left * SHARE_OF_STEPS))
    return steps if steps >= FEWEST_STEPS and plan.resizing is None else 0
