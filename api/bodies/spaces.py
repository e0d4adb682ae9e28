"""What the schema cannot know of a search: whether the fields take what its space has for them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from training_core.contract.spec import JobSpec
from training_core.contract.spec.space_faults import faults
from training_core.contract.spec.space_values import Fault


def space_faults(spec: JobSpec) -> Iterator[dict[str, Any]]:
    """Each fault in the search space of a spec, with its place in the body."""
    yield from (as_fault(fault) for fault in faults(spec))


def as_fault(fault: Fault) -> dict[str, Any]:
    place = ("body", *fault.place)
    if not fault.allowed:
        return {"type": "value_error", "loc": place, "ctx": {"error": fault.message}}
    expected = ", ".join(f"'{name}'" for name in fault.allowed)
    return {
        "type": "literal_error", "loc": place, "msg": fault.message, "input": fault.given, "ctx": {"expected": expected}
    }  # fmt: skip
