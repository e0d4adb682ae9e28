"""What a search is expected to take, in whole trainings."""

from __future__ import annotations

from api.search.ladder import pruner_of, strategy_of
from api.search.rungs import Ladder, cost
from api.search.view import StudyView
from training_core.contract.spec import Search


def ladder_of(search: Search) -> Ladder:
    """Where its trainings are cut, the last being 1.0; before it has a trial."""
    return tuple(strategy_of(search).ladder(StudyView(search, [])))


def trainings(search: Search) -> float:
    """Of all trials together, where as many go on at each rung as may.

    Hyperband deals its trials evenly to brackets, of which the first cuts at every rung and the last at none.
    """
    return _searching(search) + (1 if search.finish == "retrain" else 0)


def _searching(search: Search) -> float:
    if search.population is not None:
        return float(search.population.size)
    ladder, factor = ladder_of(search), search.pruner.reduction_factor
    match pruner_of(search):
        case "halving":
            return min(cost(ladder, search.trials, factor), search.trials)
        case "median":
            return min(cost(ladder, search.trials, 2), search.trials)
        case "hyperband":
            dealt = search.trials / len(ladder)
            of_each = (cost(ladder[first:], max(1, round(dealt)), factor) for first in range(len(ladder)))
            return min(sum(of_each), search.trials)
        case _:
            return float(search.trials)
