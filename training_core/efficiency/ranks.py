"""Which rank the others wait for."""

from __future__ import annotations

from collections import Counter
from statistics import median

import torch
from torch import distributed

from training_core.distributed.ranks import Ranks
from training_core.efficiency.model import RankTimes


def gather(ranks: Ranks, values: list[float]) -> list[list[float]]:
    """The values of every rank, in rank order; all ranks call this at the same step."""
    if ranks.world_size == 1:
        return [values]
    mine = torch.tensor(values, dtype=torch.float64)  # in host memory: a GPU need not be waited for
    others = [torch.empty_like(mine) for _ in range(ranks.world_size)]
    distributed.all_gather(others, mine)
    return [one.tolist() for one in others]


class Stragglers:
    """Sums over stretches of steps, each with the seconds of every rank: its own work, and its waiting for data."""

    def __init__(self) -> None:
        self._steps = 0
        self._work: list[float] = []
        self._data: list[float] = []
        self._slowest: Counter[int] = Counter()

    def add(self, steps: int, work: list[float], data: list[float]) -> None:
        """`work` holds the seconds of `data`."""
        self._steps += steps
        self._work = [a + b for a, b in zip(self._work or [0.0] * len(work), work, strict=True)]
        self._data = [a + b for a, b in zip(self._data or [0.0] * len(data), data, strict=True)]
        self._slowest[work.index(max(work))] += 1

    def times(self) -> RankTimes | None:
        """None for one rank, and before the first stretch."""
        if self._steps == 0 or len(self._work) == 1:
            return None
        slowest = self._work.index(max(self._work))
        others = median(work for rank, work in enumerate(self._work) if rank != slowest)
        stretches = self._slowest.total()
        return RankTimes(
            step_seconds=[round(work / self._steps, 6) for work in self._work],
            data_wait_seconds=[round(data / self._steps, 6) for data in self._data],
            slowest=slowest,
            spread=round(self._work[slowest] / others - 1, 4) if others > 0 else 0.0,
            # One stretch in five may be chance.
            slowest_changes=stretches >= 3 and self._slowest.most_common(1)[0][1] < 0.8 * stretches,
            stretches=stretches,
        )
