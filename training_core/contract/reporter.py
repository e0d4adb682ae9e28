"""What rank 0 says while it trains; the other ranks say nothing."""

from __future__ import annotations

import math
import time

from training_core.contract.reports import AlertRaised, AnyReport, Metric
from training_core.contract.run_dir import EventsFile


class Reports:
    """Appends to the events file and keeps the complete history of metric points for the checkpoints."""

    def __init__(self, file: EventsFile | None) -> None:
        self._file = file
        self.history: list[Metric] = []

    def say(self, report: AnyReport) -> None:
        if self._file is not None:
            self._file.append(report)

    def metric(self, step: int, epoch: float, values: dict[str, float]) -> None:
        point = Metric(step=step, epoch=round(epoch, 6), values=values, measured_at=time.time())
        self.history.append(point)
        # The line carries its own time; `measured_at` is for points that are told again.
        self.say(point.model_copy(update={"measured_at": None}))

    def repeat(self, history: list[Metric]) -> None:
        """Tell everything known at a checkpoint: what the lost host did not deliver is not lost with it."""
        self.history = list(history)
        for point in history:
            self.say(point)

    def alert(self, alert: str, message: str, **data: object) -> None:
        self.say(AlertRaised(alert=alert, message=message, data=data))

    def sync(self) -> None:
        if self._file is not None:
            self._file.sync()


def all_finite(values: dict[str, float]) -> bool:
    return all(math.isfinite(value) for value in values.values())
