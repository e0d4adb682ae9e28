"""Points of a search space: which parameters a point has, and the one way in which each of its values is written."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from decimal import Decimal
from itertools import islice

from training_core.contract.spec.search import AnyParameter, CategoricalParameter, FloatParameter, IntParameter, Scalar

Space = Mapping[str, AnyParameter]
Point = Mapping[str, Scalar]

COUNTED = 20_000  # points of a space that are gone through one by one; a search has not the time for more


def order(space: Space) -> tuple[str, ...]:
    """The parameters, each behind those that its condition names; those that wait for each other are left out."""
    ordered: dict[str, None] = {}
    left = sorted(space)
    while ready := [name for name in left if all(parent in ordered for parent in space[name].when)]:
        ordered |= dict.fromkeys(ready)
        left = [name for name in left if name not in ordered]
    return tuple(ordered)


def exists(parameter: AnyParameter, point: Point) -> bool:
    """Whether the parameter's condition holds at a point that has all that comes before it."""
    return all(
        parent in point and any(same(point[parent], value) for value in values)
        for parent, values in parameter.when.items()
    )


def same(one: Scalar, other: Scalar) -> bool:
    """Equal as values of a spec: 1 and 1.0 are, 1 and true are not."""
    return isinstance(one, bool) == isinstance(other, bool) and one == other


def written(parameter: AnyParameter, value: Scalar) -> Scalar:
    """The value as the parameter writes it. Raises `ValueError`, in words, for one that it cannot have."""
    if isinstance(parameter, CategoricalParameter):
        for choice in parameter.choices:
            if same(choice, value):
                return choice
        raise ValueError("is none of the choices")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("must be a number")
    if not parameter.low <= value <= parameter.high:
        raise ValueError(f"lies outside {parameter.low} to {parameter.high}")
    if isinstance(parameter, IntParameter) and value != int(value):
        raise ValueError("must be a whole number")
    return _on_step(parameter, value)


def _on_step(parameter: FloatParameter | IntParameter, value: float) -> float:
    number = int(value) if isinstance(parameter, IntParameter) else float(value)
    if parameter.step is None:
        return number
    index = round((value - parameter.low) / parameter.step)
    on_step = value_at(parameter, index)
    if not math.isclose(on_step, value, rel_tol=1e-9, abs_tol=1e-9 * parameter.step):
        raise ValueError(f"is not on a step of {parameter.step} from {parameter.low}")
    return on_step


def value_at(parameter: FloatParameter | IntParameter, index: int) -> float:
    """`low` and `index` steps, without the noise of binary fractions: 0.1 and two steps of 0.1 are 0.3."""
    if isinstance(parameter, IntParameter):
        return parameter.low + index * parameter.step
    return float(Decimal(repr(parameter.low)) + index * Decimal(repr(parameter.step)))


def count(parameter: AnyParameter) -> int | None:
    """How many values the parameter has; None for a float without a step."""
    if isinstance(parameter, CategoricalParameter):
        return len(parameter.choices)
    if parameter.step is None:
        return None
    low, high, step = (Decimal(repr(number)) for number in (parameter.low, parameter.high, parameter.step))
    return int((high - low) / step) + 1


def values(parameter: AnyParameter) -> Iterator[Scalar]:
    """All of them, in order. A float without a step has none to count."""
    if isinstance(parameter, CategoricalParameter):
        yield from parameter.choices
    else:
        yield from (value_at(parameter, index) for index in range(count(parameter) or 0))


def canonical(space: Space, point: Point) -> dict[str, Scalar]:
    """The point as it is booked and compared: each value as its parameter writes it, by name, without what its
    condition rules out. What the space does not name stays, such as the seed of a training that is repeated.

    Raises `ValueError` for a value that its parameter cannot have.
    """
    settled = {name: value for name, value in point.items() if name not in space}
    for name in order(space):
        if name in point and exists(space[name], settled):
            settled[name] = written(space[name], point[name])
    return dict(sorted(settled.items()))


def counted(space: Space) -> list[dict[str, Scalar]] | None:
    """All points, each once, in order; None for an endless space, and for one of more than `COUNTED`."""
    if any(count(parameter) is None for parameter in space.values()):
        return None
    found = list(islice(_complete(space, order(space), {}), COUNTED + 1))
    return found if len(found) <= COUNTED else None


def _complete(space: Space, names: tuple[str, ...], point: Point) -> Iterator[dict[str, Scalar]]:
    if not names:
        yield dict(sorted(point.items()))
    elif not exists(space[names[0]], point):
        yield from _complete(space, names[1:], point)
    else:
        for value in values(space[names[0]]):
            yield from _complete(space, names[1:], {**point, names[0]: value})


def key(space: Space, point: Point) -> str:
    """Equal for two points exactly when they train the same."""
    return json.dumps(canonical(space, point))
