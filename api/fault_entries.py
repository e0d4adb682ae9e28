"""Faults as a client sees them: at most 50, with the nearest known names. A rejected value is never repeated."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

ENTRIES = 50
SUGGESTIONS = 20
COMPARED = 200
NAME_CHARACTERS = 64
MESSAGE_CHARACTERS = 1000

Entry = dict[str, Any]
Names = Mapping[str, Sequence[str]]


def entries_of(faults: Sequence[Any], names: Names | None = None) -> list[Entry]:
    """One for each wrong place; `names` gives the known fields at a pointer, for the nearest one."""
    nearest = Nearest()
    found: dict[str, Entry] = {}
    for fault in map(_of_tag, faults):
        entry = _entry(fault, names or {}, nearest)
        place = f"{entry.get('parameter')}{entry.get('pointer')}"
        if place not in found and len(found) == ENTRIES:
            break
        known = found.setdefault(place, entry)
        if known is not entry and "allowed" in entry:
            _add_alternative(known, entry, fault, nearest)
    return list(found.values())


class Nearest:
    """Looks for near names until so many were found or looked for that one more would help nobody."""

    def __init__(self) -> None:
        self._left = SUGGESTIONS

    def to(self, given: object, allowed: Sequence[str]) -> str | None:
        """None too for what is no text, or longer than any name."""
        if self._left == 0 or not isinstance(given, str) or len(given) > NAME_CHARACTERS:
            return None
        self._left -= 1
        return next(iter(get_close_matches(given, allowed[:COMPARED], n=1, cutoff=0.6)), None)


def _of_tag(fault: Any) -> Any:
    """A wrong word that says which kind of object this is, as a fault of that very word."""
    if fault["type"] != "union_tag_invalid":
        return fault
    context = fault["ctx"]
    place = (*fault["loc"], context["discriminator"].strip("'"))
    message = f"Input should be {context['expected_tags']}"
    expected = {"expected": context["expected_tags"]}
    return {"type": "literal_error", "loc": place, "msg": message, "input": context["tag"], "ctx": expected}


def _entry(fault: Any, names: Names, nearest: Nearest) -> Entry:
    source, *rest = fault["loc"]
    entry: Entry = {"pointer": _pointer(rest)} if source == "body" else {"parameter": str(rest[0] if rest else source)}
    entry |= {"code": fault["type"], "message": _message(fault)[:MESSAGE_CHARACTERS]}
    if fault["type"] == "extra_forbidden":
        entry["allowed"] = list(names.get("/".join(str(part) for part in rest[:-1]), ()))
        if (near := nearest.to(rest[-1], entry["allowed"])) is not None:
            entry["did_you_mean"] = near
    if (near := getattr(fault.get("ctx", {}).get("error"), "did_you_mean", None)) is not None:
        entry["did_you_mean"] = near
    if fault["type"] in ("literal_error", "enum"):
        entry["allowed"] = re.findall(r"'([^']*)'", str(fault.get("ctx", {}).get("expected", "")))
        if (near := nearest.to(fault.get("input"), entry["allowed"])) is not None:
            entry["did_you_mean"] = near
    return entry


def _pointer(place: Sequence[int | str]) -> str:
    """RFC 6901; of a name that is longer than any known one its beginning."""
    parts = (str(part)[:NAME_CHARACTERS].replace("~", "~0").replace("/", "~1") for part in place)
    return "".join(f"/{part.encode(errors='replace').decode()}" for part in parts)


def _add_alternative(entry: Entry, other: Mapping[str, Any], fault: Any, nearest: Nearest) -> None:
    """A field that takes one thing or another, such as a number or `auto`, has a fault for each of them."""
    message = entry["message"] + ", or " + " or ".join(f"'{name}'" for name in other["allowed"])
    entry["message"] = message[:MESSAGE_CHARACTERS]
    if "allowed" in entry:
        entry["allowed"] = [*entry["allowed"], *other["allowed"]]
    if (near := nearest.to(fault.get("input"), entry.get("allowed", other["allowed"]))) is not None:
        entry["did_you_mean"] = near


def _message(fault: Any) -> str:
    """pydantic's own words, without the parts that repeat the input."""
    match fault["type"]:
        case "extra_forbidden":
            return "There is no such field"
        case "value_error":
            return str(fault.get("ctx", {}).get("error", "The value is not accepted"))
        case "model_type" | "model_attributes_type":
            return "Input should be an object"
        case "json_invalid":
            return "The body is not valid JSON"
        case _:
            return str(fault["msg"])
