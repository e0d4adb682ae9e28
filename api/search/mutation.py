"""How a member of a population changes the parameters that it took over (Jaderberg et al. 2017, `explore`)."""

from __future__ import annotations

import math
from random import Random

from api.search.view import Parameters
from training_core.contract.spec import (
    AnyParameter,
    CategoricalParameter,
    FloatParameter,
    IntParameter,
    Population,
    Scalar,
)
from training_core.contract.spec.points import Space, exists, order, value_at


def changed(space: Space, parameters: Parameters, population: Population, dice: Random) -> dict[str, Scalar]:
    """Numbers are multiplied by one of `perturbation`, or drawn anew with the probability `resample`; choices, which
    have no order, are drawn anew with it or stay. Values stay within their bounds and on their steps.

    A parameter whose condition begins to hold is drawn, one whose condition ceases to is left out.
    """
    after = {name: value for name, value in parameters.items() if name not in space}
    for name in order(space):
        parameter, value = space[name], parameters.get(name)
        if not exists(parameter, after):
            continue
        if name not in parameters or dice.random() < population.resample:
            after[name] = drawn(parameter, dice)
        elif isinstance(parameter, CategoricalParameter) or not isinstance(value, int | float):
            after[name] = value
        else:
            after[name] = multiplied(parameter, value, dice.choice(population.perturbation))
    return dict(sorted(after.items()))


def drawn(parameter: AnyParameter, dice: Random) -> Scalar:
    """Evenly, by the logarithm where the parameter says so."""
    if isinstance(parameter, CategoricalParameter):
        return dice.choice(parameter.choices)
    low, high = parameter.low, parameter.high
    if not parameter.log:
        return _fitted(parameter, dice.uniform(low, high))
    return _fitted(parameter, math.exp(dice.uniform(math.log(low), math.log(high))))


def multiplied(parameter: FloatParameter | IntParameter, value: float, factor: float) -> float:
    """By `factor`, and by one step at least where there are steps."""
    target = value * factor
    if parameter.step is not None and abs(target - value) < parameter.step:
        target = value + math.copysign(parameter.step, target - value)
    return _fitted(parameter, target)


def _fitted(parameter: FloatParameter | IntParameter, value: float) -> float:
    """Within the bounds and on the nearest step, which for whole numbers is 1 or more."""
    if isinstance(parameter, FloatParameter) and parameter.step is None:
        return min(max(value, parameter.low), parameter.high)
    step = parameter.step or 1
    last = math.floor((parameter.high - parameter.low) / step + 1e-9)
    index = min(max(round((value - parameter.low) / step), 0), last)
    return value_at(parameter, index)
