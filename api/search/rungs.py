"""Where a training is cut, how trials stand at a cut, and how that is said."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property

from api.search.view import Prune, StudyView, TrialView

Ladder = tuple[float, ...]

# Tuned on recorded trainings (benchmarks/search/table.py), by other seeds than those that are shown.
COST = 4.2  # whole trainings that all trials together take, where their number allows
LEAST, MOST = 1 / 128, 1 / 4  # of the first rung: after less the best are among the many
FINER = 1.02  # between the first rungs that are tried
LAST = 0.75  # a rung beyond this would spare next to nothing
ROUNDING = 1e-9
WHOLE, FEW = 2, 8  # so many trainings at least come to their end, or one of fewer trials than `FEW`


def geometric(first: float, factor: int) -> Ladder:
    """Cuts as fractions of a whole training: `first`, each `factor` times the one before, and the end, 1.0."""
    rungs = [first]
    while rungs[-1] * factor <= LAST:
        rungs.append(rungs[-1] * factor)
    return (*(one for one in rungs if one <= LAST), 1.0)


def even(first: float, factor: int) -> Ladder:
    """From `first` to 1.0 by equal ratios, as near to `factor` as they can be."""
    steps = max(1, round(math.log(1 / first, factor)))
    return (*(first ** (1 - step / steps) for step in range(steps)), 1.0)


def cost(ladder: Ladder, trials: int, factor: int) -> float:
    """Whole trainings that `trials` take together when one in `factor` goes on from each rung."""
    total, before, left = 0.0, 0.0, trials
    for rung, fraction in enumerate(ladder):
        going = max(left, whole(trials)) if rung == len(ladder) - 1 else max(left, 1)
        total += going * (fraction - before)
        before, left = fraction, left // factor
    return total


@cache
def ladder_for(trials: int, factor: int) -> Ladder:
    """That with the longest first rung with which all trials together cost no more than `COST`."""
    first = MOST
    while first > LEAST and cost(even(first, factor), trials, factor) > COST:
        first = max(first / FINER, LEAST)
    return even(first, factor)


def absent_trials(there: int, wanted: int, factor: int) -> int:
    """How many more than `there` the rungs may count, for no more than `wanted` trials would have cost."""
    if there == 0:
        return 0
    allowed, ladder = cost(ladder_for(wanted, factor), wanted, factor), ladder_for(there, factor)
    counts = range(there, wanted + 1)
    return max(0, bisect_right(counts, allowed + ROUNDING, key=lambda count: cost(ladder, count, factor)) - 1)


def whole(trials: int) -> int:
    """How many trainings come to their end at least."""
    return WHOLE if trials >= FEW else 1


def next_stop(ladder: Ladder, trial: TrialView) -> tuple[int | None, float | None]:
    """The rung after the one that a trial stands at, and its fraction; None and None for its end."""
    start = 0 if trial.rung is None else trial.rung + 1
    for rung in range(start, len(ladder) - 1):
        if ladder[rung] > trial.reached:
            return rung, ladder[rung]
    return None, None


def went_on(trial: TrialView, rung: int) -> bool:
    """Beyond `rung`, where it has reported."""
    return trial.rung is None or trial.rung > rung


@dataclass(frozen=True)
class Standing:
    """All trials that reported at a rung, the best first; those without a value come last."""

    view: StudyView
    rung: int
    ranked: Sequence[TrialView]

    @classmethod
    def at(cls, view: StudyView, rung: int) -> Standing:
        there = [one for one in view.trials if rung in one.at_rungs or (one.waits and one.rung == rung)]
        return cls(view, rung, sorted(there, key=lambda one: order(view.score(one.at_rungs.get(rung)), one.number)))

    def __len__(self) -> int:
        return len(self.ranked)

    @cached_property
    def rank(self) -> dict[int, int]:
        """From 1 on, by the number of the trial."""
        return {one.number: place for place, one in enumerate(self.ranked, 1)}

    @cached_property
    def promoted(self) -> int:
        return sum(went_on(one, self.rung) for one in self.ranked)

    @cached_property
    def waiting(self) -> list[TrialView]:
        """Those with a value that wait here for a decision, the best first."""
        return [one for one in self.ranked if one.waits and one.rung == self.rung and not math.isnan(self.score(one))]

    def without_value(self, ladder: Ladder) -> list[Prune]:
        """Those that wait here and have no value, or none that is a number: they never go on."""
        why = f"{named(self.rung, ladder)}: the trial reported no {self.view.objective.metric} that is a number"
        lost = [one for one in self.ranked if one.waits and one.rung == self.rung and math.isnan(self.score(one))]
        return [Prune(one.number, why) for one in lost]

    def score(self, trial: TrialView) -> float:
        """Greater is better."""
        return self.view.score(trial.at_rungs.get(self.rung))

    def value(self, trial: TrialView) -> float:
        """As it was measured."""
        return trial.at_rungs.get(self.rung, {}).get(self.view.objective.metric, math.nan)

    def place(self, trial: TrialView, ladder: Ladder) -> str:
        """Such as `rung 1 (3.3 % of the training): validation/accuracy 0.6212 is rank 31 of 60`."""
        rank = f"rank {self.rank[trial.number]} of {len(self)}"
        return f"{named(self.rung, ladder)}: {self.view.objective.metric} {short(self.value(trial))} is {rank}"


def named(rung: int, ladder: Ladder) -> str:
    fraction = ladder[min(rung, len(ladder) - 1)]
    return f"rung {rung} ({short(100 * fraction, 3)} % of the training)"


def short(value: float, digits: int = 4) -> str:
    return f"{value:.{digits}g}"


def order(score: float, number: int) -> tuple[bool, float, int]:
    """Sorts the best first, an earlier trial before a tie, those without a number last."""
    return math.isnan(score), 0.0 if math.isnan(score) else -score, number
