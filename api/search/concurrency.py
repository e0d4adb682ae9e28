"""How many trials of a search go at the same time, and which part of a device each of them takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from api.book.models import Worker
from api.profiles import Profile
from training_core.contract.spec import JobSpec

PER_SLOT = 8  # small trainings of one thread each; more of them wait for memory more than for a core
TRIAL_BYTES = 1 << 30  # of a host's memory, that a training on CPUs has at least
AHEAD = 2
LEAST_SHARE = 0.05  # `compute.share` has it too


@dataclass(frozen=True)
class Placing:
    """`parallel` trials, each on `share` of one device or CPU slot; `ahead` more may be on hand, so that no slot waits.

    Where more would fit than may go at the same time, none is ahead: it would go too.
    """

    parallel: int
    share: float
    ahead: int = 0

    @property
    def room(self) -> int:
        """How many trials may be queued and under way together."""
        return self.parallel + self.ahead


ONE = Placing(1, 1.0)


def place(spec: JobSpec, profile: Profile | None, workers: Sequence[Worker]) -> Placing:
    """By the workers that are online and serve the profile; one trial where there are none, which waits for one.

    Named trials that outnumber the slots share them evenly. On CPUs `auto` runs one trial on each core, which makes
    more of small networks than all cores on one; on GPUs one on each device.
    """
    assert spec.search is not None  # noqa: S101  the caller has a search
    serving = [worker for worker in workers if profile is not None and profile.serves(worker)]
    if profile is None or not serving:
        return ONE
    slots = sum(worker.slots // profile.devices for worker in serving)
    asked, share = spec.search.parallel, spec.compute.share
    if profile.devices > 1:
        return _placing(asked, slots, 1.0)
    if share != "auto":
        return _placing(asked, slots * math.floor(1 / share + 1e-9), share)
    if asked != "auto":
        per_slot = min(math.ceil(asked / slots), math.floor(1 / LEAST_SHARE))
        return _placing(asked, slots * per_slot, 1 / per_slot)
    per_slot = 1 if profile.device == "cuda" else min(_cores_of_a_slot(worker) for worker in serving)
    return _placing(asked, slots * per_slot, 1 / per_slot)


def _placing(asked: int | str, fit: int, share: float) -> Placing:
    parallel = max(1, fit if isinstance(asked, str) else min(asked, fit))
    return Placing(parallel, share, ahead=min(AHEAD, parallel) if parallel == fit else 0)


def _cores_of_a_slot(worker: Worker) -> int:
    memory = worker.memory_bytes // worker.slots // TRIAL_BYTES
    return max(1, min(worker.cores // worker.slots, memory, PER_SLOT))
