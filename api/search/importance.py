"""Which parameters decide whether a trial is among the best: PED-ANOVA (Watanabe et al. 2023), as Optuna has it.

It asks how differently the best trials and all trials are spread over a parameter's range, and needs only their order.
So trials that were pruned count as well: a trial that came further is before one that did not, and of two that came
equally far the one that was better there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

import optuna
from optuna.distributions import BaseDistribution
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from api.search.columns import AtRungs, Columns
from api.search.space import distributions
from training_core.contract.spec import AnyParameter, CategoricalParameter, Objective, Scalar, Search

Point = Mapping[str, float]

LEAST_TRIALS = 20  # the best tenth, or five, beside the rest; with fewer the answer is chance
LEAST_BEST, BEST_FRACTION = 5, 0.1
LEAST_OF_A_KIND = 2  # trials with, and trials without a conditional parameter


class Importance(NamedTuple):
    """Of one objective: the fractions of 1 by parameter, the greatest first, or the reason that there are none."""

    trials: int
    finished: int
    parameters: Mapping[str, float]
    reason: str | None = None


class Rank(NamedTuple):
    """A trial by its place among the columns. Less is better; equal ones have equal ranks."""

    place: int
    rank: int


def importance(
    search: Search, objective: Objective, columns: Columns, rungs: AtRungs, points: Sequence[Point]
) -> Importance:
    """Over all trials that came to a value; `rungs` are those of the trials that only came to one."""
    ranked = _ranked(objective, columns, rungs)
    values = columns.values[objective.metric]
    finished = sum(values[one.place] is not None for one in ranked)
    if len(ranked) < LEAST_TRIALS:
        reason = f"{len(ranked)} trials have a value; importance needs at least {LEAST_TRIALS}"
        return Importance(len(ranked), finished, {}, reason)
    if len({one.rank for one in ranked}) == 1:
        return Importance(len(ranked), finished, {}, f"All trials have the same {objective.metric}")
    found = _evaluate(search, points, ranked)
    total = sum(found.values())
    if total <= 0:
        return Importance(len(ranked), finished, {}, "No parameter differs between the best trials and the others")
    return Importance(len(ranked), finished, {name: value / total for name, value in found.items()})


def _ranked(objective: Objective, columns: Columns, rungs: AtRungs) -> list[Rank]:
    sign = -1.0 if objective.maximize else 1.0
    stands = {
        number: (-fraction, sign * float(value))
        for number, fraction, value in zip(rungs.numbers, rungs.fractions, rungs.values, strict=True)
        if value is not None and math.isfinite(float(value))
    }
    found = []
    for place, (number, value) in enumerate(zip(columns.numbers, columns.values[objective.metric], strict=True)):
        stand = (-math.inf, sign * value) if value is not None else stands.get(number)
        if stand is not None:
            found.append((stand, place))
    order = {stand: rank for rank, stand in enumerate(sorted({stand for stand, _ in found}))}
    return [Rank(place, order[stand]) for stand, place in found]


def points_of(search: Search, columns: Columns) -> list[Point]:
    """Of each trial, in Optuna's terms: the same for all objectives."""
    names = list(search.space)
    encoded = [_encoded(search.space[name], columns.parameters[name]) for name in names]
    return [
        {name: value for name, value in zip(names, row, strict=True) if value is not None}
        for row in zip(*encoded, strict=True)
    ]


def _encoded(parameter: AnyParameter, values: Sequence[Scalar]) -> Sequence[float | None]:
    """As `space.encode`, a column at once; None where a trial does not have the parameter."""
    if not isinstance(parameter, CategoricalParameter):
        return [value if isinstance(value, int | float) else None for value in values]
    places = {(isinstance(choice, bool), choice): place for place, choice in enumerate(parameter.choices)}
    return [places.get((isinstance(value, bool), value)) for value in values]


def _evaluate(search: Search, points: Sequence[Point], ranked: Sequence[Rank]) -> dict[str, float]:
    space = {name: _identified(kind) for name, kind in distributions(search.space).items()}
    trials = [_Trial(one.place, float(one.rank), points[one.place], space) for one in ranked]
    quantile = max(BEST_FRACTION, LEAST_BEST / len(trials))
    evaluator = PedAnovaImportanceEvaluator(target_quantile=quantile)
    return evaluator.evaluate(_Ranked(cast(list[FrozenTrial], trials)), _comparable(trials, list(space)))


def _identified(kind: BaseDistribution) -> BaseDistribution:
    """A twin that is known by its identity: Optuna hashes the distribution of each parameter of each trial."""
    twin: BaseDistribution = object.__new__(type(type(kind).__name__, (type(kind),), {"__hash__": object.__hash__}))
    vars(twin).update(vars(kind))
    return twin


def _comparable(trials: Sequence[_Trial], names: Sequence[str]) -> list[str]:
    """Parameters with enough trials that have them, and enough or none that do not."""
    having = {name: sum(name in trial.params for trial in trials) for name in names}
    few = range(1, LEAST_OF_A_KIND)
    return [name for name in names if having[name] >= LEAST_OF_A_KIND and len(trials) - having[name] not in few]


class _Trial:
    """As much of a trial as the evaluator reads: ten thousand of Optuna's own take a tenth of a second to make."""

    __slots__ = ("_trial_id", "distributions", "params", "value", "values")

    def __init__(self, place: int, rank: float, point: Point, space: Mapping[str, BaseDistribution]) -> None:
        self._trial_id, self.value, self.values, self.params = place, rank, (rank,), point
        self.distributions = space if len(point) == len(space) else {name: space[name] for name in point}


class _Ranked(optuna.Study):
    """As much of a study as it reads: a storage of Optuna's would copy each trial several times."""

    def __init__(self, trials: list[FrozenTrial]) -> None:
        self._trials = trials
        self._directions = [StudyDirection.MINIMIZE]

    def get_trials(self, deepcopy: bool = True, states: object = None) -> list[FrozenTrial]:  # noqa: ARG002
        return self._trials
