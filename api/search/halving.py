"""Asynchronous successive halving (Li et al. 2020, `A System for Massively Parallel Hyperparameter Tuning`).

Three things differ from the paper. No more than `floor(n / eta)` of n trials ever go on from a rung, also when early
ones that went on have fallen behind: so the cost is bounded. A trial is given up as soon as it could not go on even if
all trials to come did worse. And when nothing else is left to do, the best that wait are trained to their end until
two trainings have come out whole, as the last rung is too short to tell the very best apart.

Where a finite space has fewer points than the search may have trials, it goes on after that for what the absent ones
would have cost, in rounds: from each rung, the first one first, as many more go on as if twice as many trials had come
there, then four times as many and so on, and the absent ones had been worse than all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from api.search.rungs import Ladder, Standing, geometric, ladder_for, next_stop, short, whole
from api.search.view import Promote, Prune, StudyView, TrialView
from training_core.contract.spec import Search

SPARE = 3  # at each rung


class Halving:
    """Of all trials that reached a rung the best one in `reduction_factor` goes on to the next."""

    def __init__(self, search: Search) -> None:
        self.factor = search.pruner.reduction_factor
        self.first = search.pruner.first_rung

    def ladder(self, view: StudyView) -> Ladder:
        if self.first == "auto":
            return ladder_for(view.search.trials, self.factor)
        return geometric(self.first, self.factor)

    def moves(self, view: StudyView) -> Sequence[Promote | Prune]:
        """Those nearest to their end first, the best of a rung first; then those that are given up."""
        ladder = self.ladder(view)
        standings = [Standing.at(view, rung) for rung in range(_rungs(view, ladder))]
        up = [(at, one) for at in reversed(standings) for one in self._promotable(at)]
        if not up and view.to_come == 0:
            busy = [one for one in view.trials if one.busy]
            more = self._once_more(view, standings, ladder)
            if more and all(one.rung == more[0].rung for one in busy):
                return more
            if not busy:
                return _finish(view, standings, ladder)
        gone = {one.number for _, one in up}
        limits = self._limits(view, standings)
        kept = gone | _spare(view, standings)
        promotions = [_promote(at, one, ladder) for at, one in up]
        return [*promotions, *(move for at in standings for move in _given_up(at, limits[at.rung], kept, ladder))]

    def _promotable(self, at: Standing) -> list[TrialView]:
        """The best `floor(n / eta)` go on; those that went on before count, even if they are not among them now."""
        best = len(at) // self.factor
        return [one for one in at.waiting if at.rank[one.number] <= best][: max(0, best - at.promoted)]

    def _once_more(self, view: StudyView, standings: Sequence[Standing], ladder: Ladder) -> list[Promote]:
        """Of the first round, and in it of the first rung, that has somebody left to go on."""
        most = view.search.trials + view.absent
        if _missing(view) or not view.absent:
            return []
        rounds = [view.search.trials * 2**number for number in range(1, (most // view.search.trials).bit_length())]
        for counted in (*rounds, most):
            for at in standings:
                going = at.waiting[: max(0, counted // self.factor ** (at.rung + 1) - at.promoted)]
                if going:
                    return [_promote(at, one, ladder) for one in going]
        return []

    def _limits(self, view: StudyView, standings: Sequence[Standing]) -> list[int]:
        """For each rung, how many trials can at most go on from it, however many are still to report there."""
        if not standings:
            return []
        most = [_heading(view, 0) + len(standings[0]) + view.to_come]
        for below, at in pairwise(standings):
            slots = max(0, most[-1] // self.factor - below.promoted)
            candidates = most[-1] - below.promoted
            most.append(len(at) + _heading(view, at.rung) + min(slots, candidates))
        counted = view.search.trials + view.absent if view.absent else 0
        return [max(count // self.factor, counted // self.factor ** (rung + 1)) for rung, count in enumerate(most)]


def _rungs(view: StudyView, ladder: Ladder) -> int:
    """Those of the ladder, and any beyond it that trials of an older ladder stand at."""
    return max([len(ladder) - 1, *(one.rung + 1 for one in view.trials if one.rung is not None)])


def _heading(view: StudyView, rung: int) -> int:
    """Trials under way to a rung that have not reported there."""
    return sum(one.busy and one.rung == rung and rung not in one.at_rungs for one in view.trials)


def _spare(view: StudyView, standings: Sequence[Standing]) -> set[int]:
    """Until enough trainings have come out well, the best of a rung stay at hand in case those that went on fail."""
    return {one.number for at in standings for one in at.waiting[:SPARE]} if _missing(view) else set()


def _missing(view: StudyView) -> int:
    """How many whole trainings are still to come out."""
    if view.search.finish == "none":
        return 0
    finished = sum(not math.isnan(view.score(one.values)) for one in view.trials)
    return max(0, whole(view.search.trials) - finished)


def _promote(at: Standing, trial: TrialView, ladder: Ladder) -> Promote:
    rung, until = next_stop(ladder, trial)
    return Promote(trial.number, rung, until, f"{at.place(trial, ladder)}; it goes on")


def _given_up(at: Standing, limit: int, kept: set[int], ladder: Ladder) -> list[Prune]:
    """Those that wait behind all that could go on from here; `limit` is how many that could be, at most."""
    hopeless = at.without_value(ladder)
    ahead = at.promoted
    for one in at.waiting:
        if (ahead >= limit or at.rank[one.number] > limit) and one.number not in kept:
            hopeless.append(Prune(one.number, f"{at.place(one, ladder)}; {_compared(at, limit)}"))
        ahead += 1
    return hopeless


def _compared(at: Standing, limit: int) -> str:
    if limit == 0:
        return "too few trials come here for one to go on"
    last = at.ranked[min(limit, len(at)) - 1]
    if limit == 1:
        return f"only the best goes on, which has {short(at.value(last))}"
    return f"the best {limit} go on, the worst of them has {short(at.value(last))}"


def _finish(view: StudyView, standings: Sequence[Standing], ladder: Ladder) -> Sequence[Promote | Prune]:
    """Nothing runs and nothing will start: train the furthest and best to their end, or, with enough there, be done."""
    hopeless = [move for at in standings for move in at.without_value(ladder)]
    left = [(at, one) for at in reversed(standings) for one in at.waiting]
    wanted = _missing(view)
    if not wanted:
        why = _over(view)
        return [*hopeless, *(Prune(one.number, f"{at.place(one, ladder)}; {why}") for at, one in left)]
    why = "it goes on, being one of the best of those that are left"
    going = [Promote(one.number, *next_stop(ladder, one), f"{at.place(one, ladder)}; {why}") for at, one in left]
    return [*going[:wanted], *hopeless]


def _over(view: StudyView) -> str:
    best = view.best()
    if best is None or best.values is None:
        return "no other trial is to come, and none is to be trained further"
    return f"no other trial is to come, and trial {best.number} ended with {short(best.values[view.objective.metric])}"
