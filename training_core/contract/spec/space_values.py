"""Whether the fields of a spec take the values that a space has for them, found out by putting them there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from random import Random
from typing import Any

from pydantic import ValidationError

from training_core.contract.errors import Failed
from training_core.contract.spec import AnyParameter, CategoricalParameter, JobSpec, Part, Scalar, Search
from training_core.contract.spec.conflicts import check_together
from training_core.contract.spec.paths import Key, keys_of
from training_core.contract.spec.points import Space, canonical, count, order, same, value_at
from training_core.contract.spec.space import apply

DRAWS = 100
Place = tuple[Key, ...]


@dataclass(frozen=True)
class Fault:
    """One wrong `place` in the spec; where `given` is a name, `allowed` are those that could stand there."""

    place: Place
    message: str
    given: str = ""
    allowed: tuple[str, ...] = ()


def value_faults(spec: JobSpec, search: Search) -> list[Fault]:
    """Values that a field refuses by themselves; without any, a space of which no point makes a spec."""
    found = [fault for path in search.space for fault in _of_one(spec, search.space, path)]
    return found or list(_of_all(spec, search))


def _of_one(spec: JobSpec, space: Space, path: str) -> Iterator[Fault]:
    for place, value in _examples(space[path]):
        why = _refusal(spec, path, {**_needed(space, path), path: value})
        if why is not None:
            yield Fault(("search", "space", path, *place), f"{path} does not take this: {why}")


def _examples(parameter: AnyParameter) -> list[tuple[Place, Scalar]]:
    """Each choice; of a range both ends and something between them, with the place of each below the parameter."""
    if isinstance(parameter, CategoricalParameter):
        return [(("choices", index), choice) for index, choice in enumerate(parameter.choices)]
    between = parameter.low + (parameter.high - parameter.low) / 3 if parameter.step is None else value_at(parameter, 1)
    return [(("low",), parameter.low), (("high",), parameter.high), ((), between)]


def _needed(space: Space, path: str) -> dict[str, Scalar]:
    """Values of other parameters with which the condition of `path` holds."""
    found: dict[str, Scalar] = {}
    for parent, wanted in space[path].when.items():
        found |= {**_needed(space, parent), parent: wanted[0]}
    return found


def _refusal(spec: JobSpec, path: str, point: dict[str, Scalar]) -> str | None:
    """Why the field itself refuses its value. What it lacks beside itself other parameters may bring."""
    keys = keys_of(path)
    try:
        applied = apply(spec, point)
    except ValidationError as error:
        own = [one for one in error.errors(include_url=False) if one["loc"][: len(keys)] == keys]
        return " or ".join(dict.fromkeys(_words(one) for one in own)) or None
    return None if _is_what_was_given(_value_at(applied, keys), point[path]) else "it is of another type"


def _words(error: Any) -> str:
    told = error.get("ctx", {}).get("error", error["msg"]) if error["type"] == "value_error" else error["msg"]
    return str(told)[:1].lower() + str(told)[1:]


def _value_at(spec: JobSpec, keys: tuple[Key, ...]) -> Any:
    value: Any = spec
    for key in keys:
        value = getattr(value, str(key)) if isinstance(value, Part) else value[key]
    return value


def _is_what_was_given(value: Any, given: Scalar) -> bool:
    """A word may stand for a part of a spec, as `light` does for an augmentation."""
    if isinstance(value, Part | Decimal):
        return True
    return same(value, given)


def _of_all(spec: JobSpec, search: Search) -> Iterator[Fault]:
    """By points drawn with a fixed seed: a sampler passes over points that make no spec, if there are others."""
    dice = Random(0)  # noqa: S311  no secret
    why = ""
    for _ in range(DRAWS):
        point = canonical(search.space, {name: _drawn(search.space[name], dice) for name in order(search.space)})
        try:
            check_together(apply(spec, point))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            why = why or f"{'.'.join(str(part) for part in first['loc'])}: {_words(first)}"
        except Failed as failed:
            why = why or failed.message
        else:
            return
    yield Fault(("search", "space"), f"None of {DRAWS} points drawn from this space makes a spec: {why}")


def _drawn(parameter: AnyParameter, dice: Random) -> Scalar:
    if isinstance(parameter, CategoricalParameter):
        return dice.choice(parameter.choices)
    if parameter.step is None:
        return dice.uniform(parameter.low, parameter.high)
    return value_at(parameter, dice.randrange(count(parameter) or 1))
