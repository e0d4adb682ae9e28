"""What a JSON body may hold at most. No spec that a person or a program has a reason to send comes near."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

DEPTH = 32
VALUES = 12_000
ITEMS = 1_000
NAME_CHARACTERS = 256
TEXT_CHARACTERS = 100_000
NUMBER_CHARACTERS = 64

Place = tuple[int | str, ...]
Fault = dict[str, Any]

_TEXT = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")


class TooLarge(Exception):
    """More values than any body may hold."""


class TooDeep(Exception):
    """Nested deeper than any body may be."""


@dataclass(frozen=True)
class LongNumber:
    """Stands in a document for a number with more digits than any number needs."""


def values_at_most(body: bytes) -> int:
    """A bound on the values of a body that costs a few passes in C; what texts hold counts too."""
    return 1 + sum(body.count(mark) for mark in (b",", b"[", b"{"))


def check_shape(body: bytes) -> None:
    """Before the body is parsed: raises `TooLarge` or `TooDeep`. What stands inside texts does not count."""
    if body.count(b'"') > 4 * VALUES:
        raise TooLarge
    bare = _TEXT.sub(b'""', body)
    depth = 0
    for bracket in bare.translate(None, delete=_NO_BRACKETS)[: 2 * VALUES]:
        depth += 1 if bracket in b"[{" else -1
        if depth > DEPTH:
            raise TooDeep
    if values_at_most(bare) > VALUES:
        raise TooLarge


def faults_in(document: Any) -> Iterator[Fault]:
    """What no field of any body takes, each with its place: a fault as pydantic tells its own."""
    waiting: list[tuple[Place, Any]] = [((), document)]
    while waiting:
        place, value = waiting.pop()
        if isinstance(value, str | LongNumber) and (why := _misfit(value, TEXT_CHARACTERS)) is not None:
            yield _fault(place, why)
        elif isinstance(value, dict | list) and len(value) > ITEMS:
            yield _fault(place, f"more than {ITEMS:,} {'members' if isinstance(value, dict) else 'items'}")
        elif isinstance(value, dict):
            for name, inner in value.items():
                if (why := _misfit(name, NAME_CHARACTERS)) is not None:
                    yield _fault((*place, name), f"its name: {why}")
                else:
                    waiting.append(((*place, name), inner))
        elif isinstance(value, list):
            waiting += [((*place, index), inner) for index, inner in enumerate(value)]


def _misfit(value: str | LongNumber, most: int) -> str | None:
    if isinstance(value, LongNumber):
        return f"a number of more than {NUMBER_CHARACTERS} characters"
    if len(value) > most:
        return f"more than {most:,} characters"
    if "\0" in value:
        return "it holds the character NUL, which cannot be stored"
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        return "it holds half of a surrogate pair, which is no character"
    return None


def _fault(place: Place, why: str) -> Fault:
    return {"type": "out_of_bounds", "loc": ("body", *place), "msg": why[:1].upper() + why[1:]}
