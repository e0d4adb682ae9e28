"""What a client asks for: the job spec. Torch-free; the API, the worker and the training share it.

Every model is frozen and refuses unknown fields. `"auto"` is the default wherever it stands; the training resolves
it and reports the value with its reason in a `plan.chosen` event.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

SPEC_VERSION = 1

Auto = Literal["auto"]
TaskName = Literal["image-classification"]
ModelName = Literal["auto", "small_cnn", "resnet18", "resnet50", "mobilenet_v3_small", "mobilenet_v3_large"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
MetricName = Literal["validation/loss", "validation/accuracy"]

# Names travel into paths, labels and logs: no slash, no control character, no surprise.
Name = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._:/@+-]*$")]
SecretName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
ProfileName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
LabelKey = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]
LabelValue = Annotated[str, StringConstraints(max_length=256, pattern=r"^[^\x00-\x1f]*$")]
Fraction = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]


class Part(BaseModel):
    """A part of the spec: immutable, and closed to unknown fields and to NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())


class Split(Part):
    """Fractions taken from the training images where the dataset brings no split of its own."""

    validation: Fraction = 0.1
    test: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @model_validator(mode="after")
    def _leaves_training_data(self) -> Split:
        if self.validation + self.test >= 1:
            raise ValueError("validation and test together must leave something to train on (their sum is 1 or more)")
        return self


class Dataset(Part):
    """Where the data is: an fsspec URI; credentials by the name of a secret, never by value."""

    uri: Annotated[str, StringConstraints(min_length=1, max_length=2048)]
    format: Literal["auto", "class-folders"] = "auto"
    split: Split = Split()
    credentials: SecretName | None = None

    @field_validator("uri")
    @classmethod
    def _well_formed(cls, uri: str) -> str:
        for link in uri.split("::"):
            if any(character.isspace() or ord(character) < 32 for character in link):
                raise ValueError("a dataset URI holds no white space or control characters")
            _, separator, rest = link.partition("://")
            if separator and "@" in rest.split("/", 1)[0]:
                raise ValueError("credentials do not belong in a URI; name a secret in dataset.credentials instead")
        if not any("://" in link for link in uri.split("::")):
            raise ValueError(
                "a dataset URI starts with its scheme, for example s3://bucket/pets/ or file:///data/pets/"
            )
        return uri


class Model(Part):
    name: ModelName = "auto"
    pretrained: Literal[False] = False


class Compute(Part):
    profile: ProfileName | Auto = "auto"
    precision: Precision = "auto"
    max_hours: Annotated[float, Field(gt=0, le=24 * 30)] = 24.0


class Optimizer(Part):
    """`momentum` belongs to SGD, `weight_decay` to all; norms and biases are never decayed."""

    name: Literal["auto", "sgd", "adam", "adamw"] = "auto"
    learning_rate: Annotated[float, Field(gt=0, le=100)] | Auto = "auto"
    weight_decay: Annotated[float, Field(ge=0, le=10)] | Auto = "auto"
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9


class Schedule(Part):
    name: Literal["cosine", "constant"] = "cosine"
    warmup_epochs: Annotated[float, Field(ge=0, le=100)] | Auto = "auto"


class EarlyStopping(Part):
    """Stop when the last `patience` evaluations brought no new best by at least `min_delta`."""

    metric: MetricName = "validation/loss"
    patience: Annotated[int, Field(ge=1, le=1000)] = 5
    min_delta: Annotated[float, Field(ge=0)] = 0.0


class Training(Part):
    epochs: Annotated[int, Field(ge=1, le=10_000)] = 10
    batch_size: Annotated[int, Field(ge=1, le=65_536)] | Auto = "auto"
    image_size: Annotated[int, Field(ge=8, le=1024)] | Auto = "auto"
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    augmentation: Literal["auto", "none", "light"] = "auto"
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    early_stopping: EarlyStopping | None = EarlyStopping()
    checkpoint_every_steps: Annotated[int, Field(ge=1)] | Auto = "auto"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0


class JobSpec(Part):
    """One training job. Stored as it was validated and never changed afterwards."""

    name: Name | None = None
    external_id: Name | None = None
    task: TaskName
    dataset: Dataset
    model: Model = Model()
    compute: Compute = Compute()
    training: Training = Training()
    priority: Annotated[int, Field(ge=-100, le=100)] = 0
    labels: Annotated[dict[LabelKey, LabelValue], Field(max_length=64)] = Field(default_factory=dict)
    metadata: Annotated[dict[LabelKey, LabelValue], Field(max_length=64)] = Field(default_factory=dict)


def is_better(value: float, best: float | None, metric: MetricName, min_delta: float = 0.0) -> bool:
    """Whether `value` improves on `best` by at least `min_delta`; NaN never does. Accuracy rises, loss falls."""
    if math.isnan(value):
        return False
    if best is None or math.isnan(best):
        return True
    gain = value - best if metric.endswith("accuracy") else best - value
    return gain > 0 and gain >= min_delta
