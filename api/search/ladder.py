"""How a search decides between its trials: the strategies, and which of them a search has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from api.search.halving import Halving
from api.search.hyperband import Hyperband
from api.search.median import Median
from api.search.population import PopulationBased
from api.search.rungs import Ladder, next_stop
from api.search.view import Adopt, Promote, Prune, StudyView
from training_core.contract.spec import Search
from training_core.contract.spec.search import PrunerName

FEW = 4  # trials; halving has nothing to choose from


class Strategy(Protocol):
    """Plain functions of the view and the search's seed."""

    def ladder(self, view: StudyView) -> Ladder:
        """Where trainings are cut, as fractions of a whole one, rising; the last is 1.0, which is no rung."""

    def moves(self, view: StudyView) -> Sequence[Promote | Adopt | Prune]:
        """What becomes of the trials that wait at a rung, the most urgent first; of those not named, nothing yet.

        Where only some can be carried out, those left out come again. A search ends with this for sure: when nothing is
        busy and nothing is to come, each trial that waits is named, or one of them goes on.
        """


class Whole:
    """No rungs: each trial is trained to its end."""

    def ladder(self, view: StudyView) -> Ladder:  # noqa: ARG002 - it is the same whoever asks
        return (1.0,)

    def moves(self, view: StudyView) -> Sequence[Promote]:
        """None as a rule; a trial that waits all the same goes on."""
        why = "every trial is trained to its end"
        return [Promote(one.number, *next_stop((1.0,), one), why) for one in view.trials if one.waits]


def strategy_of(search: Search) -> Strategy:
    """By the names in the spec; `auto` is halving where rungs tell something about the objective, and no rungs else."""
    if search.population is not None:
        return PopulationBased(search)
    match pruner_of(search):
        case "halving":
            return Halving(search)
        case "median":
            return Median(search)
        case "hyperband":
            return Hyperband(search)
        case _:
            return Whole()


def pruner_of(search: Search) -> PrunerName:
    """The pruner of a search by its name, `auto` resolved."""
    if search.pruner.name != "auto":
        return search.pruner.name
    measured = len(search.objectives) == 1 and search.objectives[0].metric.startswith("validation/")
    return "halving" if measured and search.trials > FEW else "none"
