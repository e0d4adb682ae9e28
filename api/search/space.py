"""A search space as Optuna knows it, and all of its points where they can be counted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache

from optuna import Trial
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from training_core.contract.spec import AnyParameter, CategoricalParameter, FloatParameter, Scalar, Search
from training_core.contract.spec.points import Space, canonical, count, counted, key, order, same, value_at, written

__all__ = ["canonical", "counted_points", "decode", "distance", "distributions", "encode", "key", "suggest"]


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """By name, each behind those that its condition names. A choice is its place among the choices, since Optuna holds
    1, 1.0 and true for one."""
    return {name: _distribution(space[name]) for name in order(space)}


def _distribution(parameter: AnyParameter) -> BaseDistribution:
    if isinstance(parameter, CategoricalParameter):
        return CategoricalDistribution(range(len(parameter.choices)))
    steps = count(parameter)
    high = parameter.high if steps is None or parameter.log else value_at(parameter, steps - 1)
    if isinstance(parameter, FloatParameter):
        return FloatDistribution(parameter.low, high, log=parameter.log, step=parameter.step)
    return IntDistribution(parameter.low, int(high), log=parameter.log, step=parameter.step)


def encode(space: Space, point: Mapping[str, Scalar]) -> dict[str, float]:
    """A canonical point in Optuna's terms, as far as the space names it."""
    return {name: _encoded(space[name], value) for name, value in point.items() if name in space}


def _encoded(parameter: AnyParameter, value: Scalar) -> float:
    if isinstance(parameter, CategoricalParameter):
        return next(index for index, choice in enumerate(parameter.choices) if same(choice, value))
    assert isinstance(value, int | float)  # noqa: S101  a canonical value of a number
    return value


def decode(parameter: AnyParameter, value: float) -> Scalar:
    """The other way, of one value."""
    if isinstance(parameter, CategoricalParameter):
        return parameter.choices[int(value)]
    return written(parameter, min(max(value, parameter.low), parameter.high))


def suggest(trial: Trial, name: str, distribution: BaseDistribution) -> float:
    """What the study's sampler gives this trial, in Optuna's terms."""
    match distribution:
        case FloatDistribution(low=low, high=high, step=step, log=log):
            return trial.suggest_float(name, low, high, step=step, log=log)
        case IntDistribution(low=low, high=high, step=step, log=log):
            return trial.suggest_int(name, low, high, step=step, log=log)
        case CategoricalDistribution(choices=choices):
            return int(trial.suggest_categorical(name, choices) or 0)
    raise TypeError(f"{distribution} is no distribution of a space")


def counted_points(search: Search) -> Mapping[str, dict[str, Scalar]] | None:
    """All points by their key, in order; None for an endless space, and for one of more than `points.COUNTED`."""
    return _points(search.model_dump_json(include={"space"}))


@lru_cache(maxsize=64)
def _points(space_json: str) -> Mapping[str, dict[str, Scalar]] | None:
    space = Search.model_validate_json(space_json).space
    found = counted(space)
    return None if found is None else {key(space, point): point for point in found}


def distance(space: Space, one: Mapping[str, Scalar], other: Mapping[str, Scalar]) -> float:
    """From 0 to 1 for each parameter: how far two numbers of its range, or whether two choices, are apart."""
    return sum(_apart(space[name], one.get(name), other.get(name)) for name in one.keys() | other.keys())


def _apart(parameter: AnyParameter, one: Scalar, other: Scalar) -> float:
    if isinstance(parameter, CategoricalParameter) or one is None or other is None:
        return 0.0 if one is other or same(one, other) else 1.0
    low, high, first, second = (float(number) for number in (parameter.low, parameter.high, one, other))
    if parameter.log:
        low, high, first, second = (math.log(number) for number in (low, high, first, second))
    return abs(first - second) / (high - low)
