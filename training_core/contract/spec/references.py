"""What a spec names of what the service made: a checkpoint by id, or a job, which stands for its best checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from training_core.contract.spec import JobSpec
from training_core.contract.spec.part import is_reference

WEIGHTS, TEACHER = "model.weights", "training.distillation.teacher"


class Named(NamedTuple):
    """An id, and its place in the spec."""

    place: tuple[str | int, ...]
    reference: str


def references_of(spec: JobSpec) -> Iterator[Named]:
    """Those of the spec itself, and those that its search chooses among."""
    given: dict[str, str | None] = {
        WEIGHTS: spec.model.weights,
        TEACHER: spec.training.distillation.teacher if spec.training.distillation is not None else None,
    }
    for path, value in given.items():
        if value is not None and is_reference(value):
            yield Named(tuple(path.split(".")), value)
        parameter = spec.search.space.get(path) if spec.search is not None else None
        for index, choice in enumerate(getattr(parameter, "choices", ())):
            if is_reference(choice):
                yield Named(("search", "space", path, "choices", index), str(choice))
