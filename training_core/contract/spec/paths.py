"""Dotted paths into a spec, `training.optimizer.learning_rate`, and the fields that they lead to."""

from __future__ import annotations

import types
from collections.abc import Iterator
from functools import lru_cache
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from training_core.contract.spec import JobSpec

Key = str | int


class UnknownField(Exception):
    """A path that leads nowhere. `known` is its `place`, as far as it leads; `names` are the fields there."""

    def __init__(self, known: str, names: tuple[str, ...]) -> None:
        super().__init__(f"{known or 'the spec'} has no such field")
        self.known, self.names = known, names


@lru_cache(maxsize=4096)
def keys_of(path: str) -> tuple[Key, ...]:
    """The path as keys of nested objects and lists; names of layers keep their dots. Raises `UnknownField`."""
    keys: list[Key] = []
    annotation: Any = JobSpec
    rest = path.split(".")
    while rest:
        kinds = list(_kinds(annotation))
        fields = {
            name: field.annotation for kind in kinds if _is_part(kind) for name, field in kind.model_fields.items()
        }
        length = max((len(get_args(kind)) for kind in kinds if get_origin(kind) is tuple), default=0)
        if rest[0] in fields:
            annotation = fields[rest[0]]
            keys.append(rest.pop(0))
        elif any(get_origin(kind) is dict for kind in kinds):
            return (*keys, ".".join(rest))
        elif len(rest) == 1 and rest[0].isdecimal() and int(rest[0]) < length:
            return (*keys, int(rest[0]))
        else:
            raise UnknownField(".".join(str(key) for key in keys), tuple(fields))
    return tuple(keys)


def put(document: dict[str, Any], path: str, value: object) -> None:
    """Set one value in the plain data of a spec; raises `UnknownField`.

    A part that is not there, or that a word or null stands for, begins empty.
    """
    *outer, last = keys_of(path)
    place: Any = document
    for key in outer:
        inner = place.get(key)
        place[key] = list(inner) if isinstance(inner, list | tuple) else dict(inner) if isinstance(inner, dict) else {}
        place = place[key]
    place[last] = value


def _is_part(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _kinds(annotation: Any) -> Iterator[Any]:
    """The members of a union, without what only annotates them."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _kinds(get_args(annotation)[0])
    elif origin in (Union, types.UnionType):
        for member in get_args(annotation):
            yield from _kinds(member)
    else:
        yield annotation
