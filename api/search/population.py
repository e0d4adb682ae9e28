"""Population-based training (Jaderberg et al. 2017), each member deciding for itself when it comes to a rung.

A member is compared with the newest values that all members had at the same generation or before. It waits as long as
another is more than one generation behind, so that few devices do not train one member to its end before the next has
begun; and it takes over from members alone that have come as far as itself, so that nobody ever goes back.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from random import Random

from api.book.status import Status
from api.search.mutation import changed
from api.search.rungs import Ladder, next_stop, order, short
from api.search.view import Adopt, Parameters, Promote, Prune, StudyView, TrialView, Values
from training_core.contract.spec import Population, Search


class PopulationBased:
    """`size` members side by side; after each generation those of the worst quantile go on from one of the best."""

    def __init__(self, search: Search) -> None:
        self.population = search.population or Population()
        parts = self.population.generations
        self.rungs: Ladder = (*(part / parts for part in range(1, parts)), 1.0)

    def ladder(self, view: StudyView) -> Ladder:  # noqa: ARG002 - it is the same whoever asks
        return self.rungs

    def moves(self, view: StudyView) -> Sequence[Promote | Adopt | Prune]:
        """Of the members that need wait no longer; those furthest behind come first."""
        waiting = sorted((one for one in view.trials if one.waits), key=lambda one: (one.rung or 0, one.number))
        moves = [self._decide(view, one) for one in waiting if not _must_wait(view, one)]
        return [move for move in moves if move is not None]

    def _decide(self, view: StudyView, member: TrialView) -> Promote | Adopt | Prune | None:
        at = _Generation(view, self.population, member.rung or 0)
        if member not in at.worst:
            return Promote(member.number, *next_stop(self.rungs, member), f"{at.place(member)}; it goes on")
        if at.sources:
            return self._adopt(at, member)
        if any(one.open and _generation(one) < at.rung for one in at.best):
            return None
        if math.isnan(at.score(member)):
            return Prune(member.number, f"{at.place(member)}; there is no other member to take over from")
        why = f"{at.place(member)}; it goes on, for no better member is left to take over from"
        return Promote(member.number, *next_stop(self.rungs, member), why)

    def _adopt(self, at: _Generation, member: TrialView) -> Adopt:
        dice = Random(f"{at.view.search.seed} {member.number} {at.rung}")  # noqa: S311 - no secret
        source = dice.choice(at.sources)
        parameters = changed(at.view.search.space, source.parameters, self.population, dice)
        rung, until = next_stop(self.rungs, replace(source, rung=_generation(source)))
        taken = f"it goes on from trial {source.number}, which has {short(at.value(source))}"
        why = f"{at.place(member)}; {taken}, with {_said(source.parameters, parameters)}"
        return Adopt(member.number, source.number, parameters, rung, until, why)


@dataclass(frozen=True)
class _Generation:
    """The members as they compare for one that came to `rung`: by their newest values there or before."""

    view: StudyView
    population: Population
    rung: int

    @cached_property
    def ranked(self) -> list[TrialView]:
        """The best first, those without a number last; none that failed or was given up."""
        alive = [one for one in self.view.trials if one.open or one.status == Status.SUCCEEDED]
        came = [one for one in alive if (one.waits and one.rung == self.rung) or _newest(one, self.rung) is not None]
        return sorted(came, key=lambda one: order(self.score(one), one.number))

    @cached_property
    def worst(self) -> list[TrialView]:
        count = int(self.population.quantile * len(self.ranked))
        if count == 0 and len(self.ranked) == self.population.size:
            count = 1
        return [one for place, one in enumerate(self.ranked) if place >= len(self.ranked) - count or self._void(one)]

    @cached_property
    def best(self) -> list[TrialView]:
        count = max(1, int(self.population.quantile * len(self.ranked)))
        return [one for one in self.ranked[:count] if one not in self.worst]

    @cached_property
    def sources(self) -> list[TrialView]:
        """Of the best, those that have come as far, have a checkpoint and are not at their end."""
        return [one for one in self.best if one.open and one.checkpoint and _generation(one) >= self.rung]

    def score(self, member: TrialView) -> float:
        return self.view.score(self._values(member))

    def value(self, member: TrialView) -> float:
        return self._values(member).get(self.view.objective.metric, math.nan)

    def place(self, member: TrialView) -> str:
        """Such as `generation 3 of 10: validation/accuracy 0.61 is rank 7 of 8`."""
        where = f"generation {self.rung + 1} of {self.population.generations}"
        if self._void(member):
            return f"{where}: the trial reported no {self.view.objective.metric}, or one that is not a number"
        rank = f"rank {self.ranked.index(member) + 1} of {len(self.ranked)}"
        return f"{where}: {self.view.objective.metric} {short(self.value(member))} is {rank}"

    def _void(self, member: TrialView) -> bool:
        return math.isnan(self.score(member))

    def _values(self, member: TrialView) -> Values:
        newest = self.rung if member.waits and member.rung == self.rung else _newest(member, self.rung)
        return {} if newest is None else member.at_rungs.get(newest, {})


def _must_wait(view: StudyView, member: TrialView) -> bool:
    behind = (member.rung or 0) - 1
    return view.to_come > 0 or any(one.open and _generation(one) < behind for one in view.trials)


def _generation(member: TrialView) -> int:
    """The last one that the member came to, -1 before the first."""
    return max([-1, *member.at_rungs, *([member.rung] if member.waits and member.rung is not None else [])])


def _newest(member: TrialView, rung: int) -> int | None:
    return max((one for one in member.at_rungs if one <= rung), default=None)


def _said(before: Parameters, after: Parameters) -> str:
    """What was changed, in words."""
    names = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
    told = [f"{name} {_shown(before, name)} -> {_shown(after, name)}" for name in names]
    return ", ".join(told) if told else "the same parameters"


def _shown(parameters: Parameters, name: str) -> str:
    value = parameters.get(name)
    return "unset" if name not in parameters else short(value) if isinstance(value, float) else str(value)
