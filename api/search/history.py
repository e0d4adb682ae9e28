"""How the best value came about: over the numbers of the trials, and over the device time that was spent."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import NamedTuple

from api.search.columns import Spendings


class Spent(NamedTuple):
    """Device seconds used up to each end of an attempt."""

    moments: Sequence[float]
    totals: Sequence[float]

    @classmethod
    def over(cls, spendings: Spendings) -> Spent:
        return cls(spendings.ended, [0.0, *accumulate(spendings.device_seconds)])

    def at(self, moment: float) -> float:
        """By all attempts that had ended by then."""
        return self.totals[bisect_right(self.moments, moment)]


def best_so_far(values: Iterable[float], *, maximize: bool) -> list[float]:
    return list(accumulate(values, max if maximize else min))
