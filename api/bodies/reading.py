"""From the bytes of a body to a model, or to why not. Imports no web framework: a process of its own does it too."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from api.bodies import bounds
from api.bodies.bounds import LongNumber, Place, TooDeep, TooLarge
from api.fault_entries import ENTRIES, Entry, entries_of

Asked = TypeVar("Asked", bound=BaseModel)
Check = Callable[[Any], Iterable[Any]]

# Of faults that share a place, such as those of the members of a union, one entry is made.
FAULTS = 10 * ENTRIES
WHOLE = 2**53


@dataclass
class Refused(Exception):
    """Why a body makes no model: as the 4xx that it becomes."""

    status: int
    detail: str
    entries: list[Entry] = field(default_factory=list)
    more: int = 0

    def __reduce__(self) -> tuple[Any, ...]:
        return Refused, (self.status, self.detail, self.entries, self.more)


def read(body: bytes, asked: type[Asked], check: Check | None = None) -> Asked:
    """The model in a JSON body. `true` is no number there, and `"5"` none either.

    `check` yields faults that the model itself does not know of. Raises `Refused`.
    """
    document = _parsed(body)
    if found := list(islice(bounds.faults_in(document), ENTRIES)):
        raise _refused(found, len(found), {})
    try:
        model = asked.model_validate_json(json.dumps(document), strict=True)
    except ValidationError as error:
        faults = _faults(error, document)
        raise _refused(faults, error.error_count(), _field_names(asked)) from None
    if check is not None and (found := list(islice(check(model), FAULTS))):
        raise _refused(found, len(found), {})
    return model


def _refused(faults: Sequence[Any], count: int, names: Mapping[str, Sequence[str]]) -> Refused:
    entries = entries_of(faults, names)
    first = entries[0]
    detail = f"{first.get('pointer') or 'the body'}: {first['message']}"
    return Refused(422, detail, entries, more=0 if count < ENTRIES else max(0, count - len(entries)))


def _parsed(body: bytes) -> Any:
    try:
        bounds.check_shape(body)
        return json.loads(body, object_pairs_hook=_without_duplicates, parse_int=_whole, parse_float=_number)
    except TooLarge:
        raise Refused(413, f"The body holds more than {bounds.VALUES:,} values") from None
    except TooDeep:
        raise Refused(400, f"The body is nested more than {bounds.DEPTH} levels deep") from None
    except (ValueError, RecursionError) as error:
        duplicate = str(error) if isinstance(error, _DuplicateName) else None
        raise Refused(400, duplicate or "The body is not valid JSON") from None


class _DuplicateName(ValueError):
    pass


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise _DuplicateName("An object in the body names a field twice")
    return members


def _whole(text: str) -> int | LongNumber:
    return int(text) if len(text) <= bounds.NUMBER_CHARACTERS else LongNumber()


def _number(text: str) -> float | LongNumber:
    """JSON knows one kind of number: 5.0 is the integer 5."""
    if len(text) > bounds.NUMBER_CHARACTERS:
        return LongNumber()
    value = float(text)
    return int(value) if value.is_integer() and abs(value) <= WHOLE else value


@lru_cache(maxsize=64)
def _field_names(model: type[BaseModel], prefix: str = "") -> dict[str, list[str]]:
    """Known fields by the path of their object, for the nearest valid name."""
    names = {prefix: list(model.model_fields)}
    for name, info in model.model_fields.items():
        for part in (info.annotation, *getattr(info.annotation, "__args__", ())):
            if isinstance(part, type) and issubclass(part, BaseModel):
                names |= _field_names(part, f"{prefix}/{name}" if prefix else name)
    return names


def _faults(error: ValidationError, document: Any) -> list[dict[str, Any]]:
    """Each with its place in what the client sent.

    Of a field that takes a word or an object, the word is no news to someone who sent an object with a fault inside.
    """
    first = islice(error.errors(include_url=False), FAULTS)
    found = [(fault, *_place(fault, document)) for fault in first]
    places = [place for _, place, _ in found]
    return [
        {**fault, "loc": ("body", *place)}
        for fault, place, value in found
        if not (isinstance(value, dict) and fault["type"] == "literal_error" and _has_one_inside(place, places))
    ]


def _has_one_inside(outer: Place, places: Sequence[Place]) -> bool:
    return any(len(place) > len(outer) and place[: len(outer)] == outer for place in places)


def _place(fault: Mapping[str, Any], document: Any) -> tuple[Place, Any]:
    """Where the fault is, and the value that stands there.

    Pydantic's location has names of union members too, which mean nothing to a client; and below a text that stands
    for an object (`"augmentation": "light"`) the client wrote nothing.
    """
    path: list[int | str] = []
    value, location = document, fault["loc"]
    for index, part in enumerate(location):
        is_missing = fault["type"] == "missing" and index == len(location) - 1
        if isinstance(value, dict) and (part in value or is_missing):
            path.append(part)
            value = value.get(part)
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            path.append(part)
            value = value[part]
    return tuple(path), value
