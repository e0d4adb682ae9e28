"""What every route asks of an address: parameters that it knows, in the grammar of their type, without control
characters. An unknown one is refused with the nearest: a filter that is not applied shows other rows than asked for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple, get_args, get_origin

from fastapi import Request
from fastapi.dependencies.models import Dependant

from api.errors import invalid_request

Fault = dict[str, Any]
Kinds = Mapping[str, type | None]

GRAMMAR: dict[type, tuple[re.Pattern[str], str]] = {
    bool: (re.compile(r"true|false"), "true or false"),
    int: (re.compile(r"-?(0|[1-9][0-9]{0,18})"), "a whole number"),
    float: (re.compile(r"-?(0|[1-9][0-9]{0,18})(\.[0-9]{1,18})?([eE][+-]?[0-9]{1,3})?"), "a number"),
    datetime: (
        re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)"),
        "a time as 2026-01-31T09:30:00Z (a plus sign in a query is written %2B)",
    ),
}
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Parameters(NamedTuple):
    """The type of each parameter of a route by its name; None where any text will do."""

    path: Kinds
    query: Kinds

    @classmethod
    def of(cls, dependant: Dependant) -> Parameters:
        path = {one.alias: _kind(one.field_info.annotation) for one in dependant.path_params}
        query = {one.alias: _kind(one.field_info.annotation) for one in dependant.query_params}
        for inner in map(cls.of, dependant.dependencies):
            path |= inner.path
            query |= inner.query
        return cls(path, query)


class AddressCheck:
    """A dependency of every route of one application."""

    def __init__(self) -> None:
        self._known: dict[int, Parameters] = {}

    def __call__(self, request: Request) -> None:
        """Raises a 422 that names each parameter that is wrong."""
        route = request.scope["route"]
        known = self._known.get(id(route))
        if known is None:
            known = self._known[id(route)] = Parameters.of(route.dependant)
        if found := [*_faults_of_path(request.path_params, known.path), *_faults_of_query(request, known.query)]:
            raise invalid_request(found, {"": sorted(known.query)})


def _faults_of_path(given: Mapping[str, Any], known: Kinds) -> Iterator[Fault]:
    for name, value in given.items():
        if (why := _misfit(str(value), known.get(name))) is not None:
            yield _fault("path", name, why)


def _faults_of_query(request: Request, known: Kinds) -> Iterator[Fault]:
    seen: set[str] = set()
    for name, value in request.query_params.multi_items():
        kind = known.get(name)
        if name not in known:
            yield {"type": "extra_forbidden", "loc": ("query", name), "msg": ""}
        elif name in seen and kind is not list:
            yield _fault("query", name, "It is given more than once")
        elif (why := _misfit(value, kind)) is not None:
            yield _fault("query", name, why)
        seen.add(name)


def _misfit(value: str, kind: type | None) -> str | None:
    if _CONTROL.search(value):
        return "It holds a control character"
    if kind in GRAMMAR and not GRAMMAR[kind][0].fullmatch(value):
        return f"It should be {GRAMMAR[kind][1]}"
    return None


def _fault(source: str, name: str, message: str) -> Fault:
    return {"type": "value_error", "loc": (source, name), "ctx": {"error": message}}


def _kind(annotation: Any) -> type | None:
    if annotation in (*GRAMMAR, list):
        return annotation  # type: ignore[no-any-return]
    if get_origin(annotation) is list:
        return list
    return next((kind for kind in map(_kind, get_args(annotation)) if kind is not None), None)
