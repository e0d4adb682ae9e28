"""The median rule (Golovin et al. 2017, `Google Vizier`, section 3.2.2), at eighths of a training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

from api.search.rungs import Ladder, Standing, next_stop, short
from api.search.view import Promote, Prune, StudyView, TrialView
from training_core.contract.spec import Search

EIGHTHS: Ladder = tuple(part / 8 for part in range(1, 9))
LEAST_OTHERS = 5  # fewer say too little


class Median:
    """A trial ends whose value at an eighth, or two, three …, is worse than the median of the others there."""

    def __init__(self, search: Search) -> None:
        first = search.pruner.first_rung
        self.rungs = EIGHTHS if first == "auto" else (*(one for one in EIGHTHS if one >= first - 1e-9 and one < 1), 1.0)

    def ladder(self, view: StudyView) -> Ladder:  # noqa: ARG002 - it is the same whoever asks
        return self.rungs

    def moves(self, view: StudyView) -> Sequence[Promote | Prune]:
        """One for each trial that waits, those nearest to their end first."""
        rungs = sorted({one.rung for one in view.trials if one.waits and one.rung is not None}, reverse=True)
        standings = [Standing.at(view, rung) for rung in rungs]
        decided = [self._decide(at, one) for at in standings for one in at.waiting]
        hopeless = [move for at in standings for move in at.without_value(self.rungs)]
        return sorted([*decided, *hopeless], key=lambda move: isinstance(move, Prune))

    def _decide(self, at: Standing, trial: TrialView) -> Promote | Prune:
        place = at.place(trial, self.rungs)
        others = [one for one in at.ranked if one.number != trial.number and not math.isnan(at.score(one))]
        if len(others) >= LEAST_OTHERS:
            middle = median(at.score(one) for one in others)
            shown = short(median(at.value(one) for one in others))
            if at.score(trial) < middle:
                return Prune(trial.number, f"{place}; it is worse than the median of the {len(others)} others, {shown}")
            why = f"{place}; the median of the {len(others)} others is {shown}"
        else:
            why = f"{place}; with fewer than {LEAST_OTHERS} others here every trial goes on"
        rung, until = next_stop(self.rungs, trial)
        return Promote(trial.number, rung, until, why)
