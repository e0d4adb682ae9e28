"""What all parts of a spec have in common, and the kinds of text that stand in them."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from training_core.contract.uris import parse

Auto = Literal["auto"]

REFERENCE = r"(ckpt|job)_[0-9A-Z]{26}"
WAY_OUT = "the id of a checkpoint (ckpt_…), or of a job, which stands for its best checkpoint (job_…)"


def is_reference(value: object) -> bool:
    """Whether it names a checkpoint or a job by its id."""
    return isinstance(value, str) and re.fullmatch(REFERENCE, value) is not None


def _checked_teacher(text: str) -> str:
    if not is_reference(text):
        raise ValueError(f"a teacher is named by {WAY_OUT}")
    return text


def _checked_weights(text: str) -> str:
    """A path into the store is neither an id nor a URI."""
    if "://" not in text and not is_reference(text):
        raise ValueError(f"weights are named by {WAY_OUT}, or by the URI of a safetensors file")
    return text if is_reference(text) else _checked_uri(text)


def _checked_dataset(uri: str) -> str:
    parse(uri, uploads=True)
    return uri


def _checked_uri(uri: str) -> str:
    parse(uri)
    return uri


# Names travel into paths, labels and logs: no slash, no control character, no surprise.
Name = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._:/@+-]*$")]
SecretName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
ProfileName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
LabelKey = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]
LabelValue = Annotated[str, StringConstraints(max_length=256, pattern=r"^[^\x00-\x1f]*$")]
ColumnName = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f]+$")]
LayerName = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9_.]+$")]
DatasetUri = Annotated[str, StringConstraints(min_length=1, max_length=2048), AfterValidator(_checked_dataset)]
WeightsPlace = Annotated[
    str,
    StringConstraints(min_length=1, max_length=2048),
    AfterValidator(_checked_weights),
    Field(json_schema_extra={"pattern": rf"^({REFERENCE}|[^\x00-\x1f]*://[^\x00-\x1f]*)$"}),
]
TeacherId = Annotated[str, AfterValidator(_checked_teacher), Field(json_schema_extra={"pattern": f"^{REFERENCE}$"})]
JobId = Annotated[str, StringConstraints(pattern=r"^job_[0-9A-Z]{26}$")]
FieldPath = Annotated[str, StringConstraints(max_length=256, pattern=r"^[a-z_]+(\.[A-Za-z0-9_]+)*$")]
Fraction = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]


class Part(BaseModel):
    """A part of the spec: immutable, and closed to unknown fields and to NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())
