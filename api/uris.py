"""The URIs in what a client asks for, and which of their schemes are on here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from api.dataset_check import CheckSpec
from api.settings import Settings
from training_core.contract.spec import CategoricalParameter, JobSpec

Place = tuple[int | str, ...]
WEIGHTS = "model.weights"
# What a scheme needs beside its place in the list.
NEEDS = {
    "http": "TRAINYARD_ALLOWED_URIS on the workers must cover the address too",
    "https": "TRAINYARD_ALLOWED_URIS on the workers must cover the address too",
    "gs": "the workers need the package gcsfs",
    "az": "the workers need the package adlfs",
    "hf": "the workers need the package huggingface_hub",
    "dvc": "the workers need the package dvc",
}


def uris_of(spec: JobSpec | CheckSpec) -> Iterator[tuple[Place, str]]:
    """Every URI with its place in the body; ids and paths of the store are none."""
    yield ("dataset", "uri"), spec.dataset.uri
    if isinstance(spec, CheckSpec):
        return
    if spec.model.weights is not None and "://" in spec.model.weights:
        yield ("model", "weights"), spec.model.weights
    parameter = spec.search.space.get(WEIGHTS) if spec.search is not None else None
    if isinstance(parameter, CategoricalParameter):
        for index, choice in enumerate(parameter.choices):
            if isinstance(choice, str) and "://" in choice:
                yield ("search", "space", WEIGHTS, "choices", index), choice


def scheme_fault(place: Place, scheme: str, settings: Settings) -> dict[str, Any]:
    """The refusal of a scheme names the setting that switches it on."""
    needs = f"; {NEEDS[scheme]}" if scheme in NEEDS else ""
    allowed = ", ".join(f"'{name}'" for name in sorted(settings.schemes))
    return {
        "type": "literal_error",
        "loc": ("body", *place),
        "msg": f"{scheme}:// is off here: the operator can add it to TRAINYARD_ALLOWED_SCHEMES on the API{needs}",
        "input": scheme,
        "ctx": {"expected": allowed},
    }
