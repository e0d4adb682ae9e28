"""A trial's own spec: the parameters that a search found for it, put in their places in the spec of the job."""

from __future__ import annotations

from collections.abc import Mapping

from training_core.contract.spec import JobSpec
from training_core.contract.spec.paths import put
from training_core.contract.spec.search import Scalar


def apply(spec: JobSpec, parameters: Mapping[str, Scalar]) -> JobSpec:
    """The job's spec with each value at its path, and without the search.

    A parameter that is not among `parameters`, because its condition does not hold, leaves the job's own value.
    Raises `pydantic.ValidationError` for values that the spec refuses, alone or together.
    """
    document = spec.model_dump(exclude={"search"})
    for path, value in parameters.items():
        put(document, path, value)
    return JobSpec.model_validate(document)
