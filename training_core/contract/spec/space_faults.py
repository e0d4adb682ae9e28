"""What is wrong with the search of a spec, as far as the spec itself tells: each fault with its place."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations

from training_core.contract.spec import CategoricalParameter, JobSpec, Search
from training_core.contract.spec.paths import UnknownField, keys_of
from training_core.contract.spec.points import COUNTED, count, counted, order, written
from training_core.contract.spec.space_strategy import strategy_faults
from training_core.contract.spec.space_values import Fault, Place, value_faults

# The same for all trials: what they are compared by, what they are called, and what is no matter of a training.
COMMON = (
    "search", "budget", "name", "external_id", "labels", "metadata", "priority", "task", "exports", "dataset.uri",
    "dataset.format", "dataset.columns", "dataset.credentials", "dataset.split", "dataset.label_check",
    "compute.profile", "compute.share", "compute.max_hours",
)  # fmt: skip


def faults(spec: JobSpec) -> list[Fault]:
    """Nothing for a plain job. A search with faults in its space is not looked at further."""
    search = spec.search
    if search is None:
        return []
    found = [*_path_faults(search), *_condition_faults(search)]
    return found or [
        *value_faults(spec, search),
        *_point_faults(search),
        *_grid_faults(search),
        *strategy_faults(search),
    ]


def _path_faults(search: Search) -> Iterator[Fault]:
    for path in search.space:
        place: Place = ("search", "space", path)
        common = next((one for one in COMMON if path == one or path.startswith(f"{one}.")), None)
        try:
            keys_of(path)
        except UnknownField as unknown:
            prefix = f"{unknown.known}." if unknown.known else ""
            names = tuple(f"{prefix}{name}" for name in unknown.names)
            yield Fault(place, f"There is no such field in a spec: {path}", path, names)
        else:
            if common is not None:
                yield Fault(place, f"{common} is the same for all trials of a search")
    for inner, outer in permutations(search.space, 2):
        if inner.startswith(f"{outer}."):
            yield Fault(
                ("search", "space", inner), f"This is a part of {outer}, which the space has too; leave one out"
            )


def _condition_faults(search: Search) -> Iterator[Fault]:
    space = search.space
    ordered = order(space)
    for path, parameter in space.items():
        for parent, values in parameter.when.items():
            place: Place = ("search", "space", path, "when", parent)
            if parent not in space:
                names = tuple(name for name in space if name != path)
                yield Fault(place, "A condition names a parameter of the space, which this is not", parent, names)
            elif count(space[parent]) is None:
                yield Fault(place, f"{parent} has no values to name: give it a step, or make it categorical")
            else:
                for index, value in enumerate(values):
                    try:
                        written(space[parent], value)
                    except ValueError as error:
                        yield Fault((*place, index), f"{parent} never has this value: it {error}")
        known = all(parent in space for parent in parameter.when)
        if known and path not in ordered and all(one in space for one in parameter.when):
            yield Fault(("search", "space", path, "when"), "Conditions wait for each other in a circle")


def _point_faults(search: Search) -> Iterator[Fault]:
    for index, point in enumerate(search.points):
        for name, value in point.items():
            place: Place = ("search", "points", index, name)
            if name not in search.space:
                yield Fault(place, "This is no parameter of the space", name, tuple(search.space))
                continue
            try:
                written(search.space[name], value)
            except ValueError as error:
                yield Fault(place, f"The value {error}")


def _grid_faults(search: Search) -> Iterator[Fault]:
    if search.sampler != "grid":
        return
    for path, parameter in search.space.items():
        if not isinstance(parameter, CategoricalParameter) and count(parameter) is None:
            yield Fault(("search", "space", path), "A grid needs the step between the values of a float")
            return
    if counted(search.space) is None:
        yield Fault(
            ("search", "sampler"), f"The grid has more than {COUNTED:,} points; let a sampler choose among them"
        )
