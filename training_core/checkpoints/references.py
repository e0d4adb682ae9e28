"""Where a checkpoint lies that a spec names by id: the run alone says so, no path of a spec leads into the store."""

from __future__ import annotations

from training_core.contract.errors import Failed, Reason
from training_core.contract.run_dir import RunSpec
from training_core.contract.spec.part import WAY_OUT


def place_of(run: RunSpec, reference: str, field: str) -> str:
    """Its path below the store. Raises `Failed(weights_unavailable)` for an id that nobody resolved."""
    place = run.references.get(reference)
    if place is None:
        raise gone(field, reference, f"give {WAY_OUT}")
    return place


def gone(field: str, reference: str, hint: str) -> Failed:
    """Retention may have taken it between the submission and now."""
    return Failed(Reason.WEIGHTS_UNAVAILABLE, f"{field}: there is no checkpoint {reference}, or not any more", hint)
