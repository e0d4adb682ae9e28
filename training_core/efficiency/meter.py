"""What the parts of a step take: on a CPU by its clock, on a GPU by events that are read when they are long past.

Exposed communication is what a backward pass still waits for when every gradient is computed. It is measured in each
step, at the one place where it shows: autograd calls back when its last gradient is there, before the wrapper (DDP,
FSDP2) waits for the exchange. A step without synchronisation, as others measure it, would be another training.
"""

from __future__ import annotations

from collections import defaultdict, deque
from typing import Any

import torch
from torch.autograd import Variable

from training_core.efficiency.clock import STEPS, PhaseClock

Event = Any  # torch.cuda.Event; the stubs of torch leave it untyped


class Meter:
    """Laps of the steps of one rank. `device_seconds` are those of a GPU's own time line; empty on a CPU."""

    def __init__(self, clock: PhaseClock, device: torch.device, world_size: int) -> None:
        self.clock = clock
        self._exchanges = world_size > 1
        self._timeline = Timeline() if device.type == "cuda" else None

    @property
    def device_seconds(self) -> dict[str, float]:
        return self._timeline.seconds if self._timeline is not None else {}

    def lap(self, name: str) -> None:
        """What has passed since the last lap was `name`, one of `training_core.efficiency.clock.STEPS`."""
        self.clock.lap(name)
        if self._timeline is not None:
            self._timeline.lap(name, self.clock.interruptions)

    def agreed(self) -> None:
        """What has passed was an exchange of all ranks, if there are others."""
        self.lap("communication" if self._exchanges else "loop")

    def backward(self, loss: torch.Tensor) -> None:
        """`loss.backward()`, with what it waits for the other ranks apart."""
        if self._exchanges:
            loss.register_hook(self._call_back)  # type: ignore[no-untyped-call]
        loss.backward()  # type: ignore[no-untyped-call]
        self.lap("communication" if self._exchanges else "compute")

    def _call_back(self, _: torch.Tensor) -> None:
        # Callbacks run in their order: this one before those that wrappers add when they see a gradient.
        Variable._execution_engine.queue_callback(self._computed)

    def _computed(self) -> None:
        self.lap("compute")


class Timeline:
    """Names for the time of a GPU's stream: an event at each lap, and between two of them what the later one says.

    A stream that has run dry reaches an event when the host records it: idle time belongs to what the host did.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._free: deque[Event] = deque()
        self._pending: deque[tuple[str, Event, Event]] = deque()
        self._last: Event | None = None
        self._interruptions = -1

    def lap(self, name: str, interruptions: int) -> None:
        event = self._free.popleft() if self._free else torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        if self._last is not None and interruptions == self._interruptions:
            self._pending.append((name, self._last, event))
        self._last, self._interruptions = event, interruptions
        if name == STEPS[-1]:
            self._read()

    def _read(self) -> None:
        """What has come to pass; never waits."""
        while self._pending and self._pending[0][2].query():
            name, start, end = self._pending.popleft()
            self.seconds[name] += start.elapsed_time(end) / 1000
            self._free.append(start)
