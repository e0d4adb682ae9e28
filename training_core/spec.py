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
Work = Literal["train", "check"]
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
ColumnName = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f]+$")]
WeightsPlace = Annotated[str, StringConstraints(min_length=1, max_length=2048, pattern=r"^[^\s\x00-\x1f]+$")]
DatasetFormat = Literal["class-folders", "manifest", "webdataset", "parquet", "idx"]
Action = Literal["remove", "flag", "ignore"]
AugmentationPreset = Literal["none", "light", "standard", "strong", "medical"]
Fraction = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]


class Part(BaseModel):
    """A part of the spec: immutable, and closed to unknown fields and to NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())


class Split(Part):
    """Fractions taken from the training images where the dataset brings no split of its own.

    `group_by` names a column: samples of one group (a patient, a camera, a scene) never part. Copies of one image
    never part either. The seed is the split's own: trials with other training seeds validate on the same images.
    """

    validation: Fraction = 0.1
    test: Annotated[float, Field(ge=0, lt=1)] = 0.0
    stratify: bool = True
    group_by: ColumnName | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0

    @model_validator(mode="after")
    def _leaves_training_data(self) -> Split:
        if self.validation + self.test >= 1:
            raise ValueError("validation and test together must leave something to train on (their sum is 1 or more)")
        return self


class Columns(Part):
    """Columns of a manifest, a Parquet table or the JSON of a WebDataset sample; `auto` finds the usual names."""

    image: ColumnName | Auto = "auto"
    label: ColumnName | Auto = "auto"
    split: ColumnName | Auto | None = "auto"
    weight: ColumnName | None = None
    difficulty: ColumnName | None = None


class Cleaning(Part):
    """What happens to each finding. What is removed is listed with its reason; what is flagged stays and is shown.

    Images that cannot be decoded are always left out; more of them than `max_bad_fraction` end the job while it is
    preparing, with the report attached.
    """

    exact_duplicates: Action = "remove"
    leakage: Action = "remove"
    near_duplicates: Action = "flag"
    conflicting_labels: Action = "flag"
    blurred: Action = "flag"
    dark: Action = "flag"
    bright: Action = "flag"
    low_information: Action = "flag"
    odd_size: Action = "flag"
    odd_aspect: Action = "flag"
    max_bad_fraction: Annotated[float, Field(ge=0, le=1)] = 0.01


class LabelCheck(Part):
    """A second inspection after a first model: likely label errors and the hardest examples.

    Confident learning on out-of-fold predictions (Northcutt, Jiang & Chuang 2021); costs about `folds` trainings of
    `epochs` each.
    """

    folds: Annotated[int, Field(ge=2, le=10)] = 3
    epochs: Annotated[int, Field(ge=1, le=1000)] | Auto = "auto"


class Dataset(Part):
    """Where the data is: an fsspec URI; credentials by the name of a secret, never by value."""

    uri: Annotated[str, StringConstraints(min_length=1, max_length=2048)]
    format: DatasetFormat | Auto = "auto"
    columns: Columns = Columns()
    split: Split = Split()
    credentials: SecretName | None = None
    cleaning: Cleaning = Cleaning()
    label_check: LabelCheck | None = None
    packing: Literal["auto", "raw", "jpeg", "original"] = "auto"

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
    """`pretrained` starts from torchvision's published weights, `weights` from a checkpoint of the store or a file.

    `weights` is the path of a checkpoint below the store (`jobs/…/step-00001000`) or the URI of a safetensors file.
    `trainable: head` freezes all but the last layer: each image passes the trunk once, and the head trains on what
    came out.
    """

    name: ModelName = "auto"
    pretrained: bool = False
    weights: WeightsPlace | None = None
    trainable: Literal["all", "head"] = "all"

    @model_validator(mode="after")
    def _one_origin(self) -> Model:
        if self.pretrained and self.weights is not None:
            raise ValueError("pretrained and weights exclude each other; give the one to start from")
        if self.trainable == "head" and not self.pretrained and self.weights is None:
            raise ValueError("trainable: head needs a trained trunk; set pretrained or weights")
        return self


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


class Sampling(Part):
    """Which images make an epoch, and in which order.

    `balance: classes` draws every class equally often, `weights` by the dataset's weight column. `buckets: shape`
    makes batches of images of like aspect ratio, for networks that take any shape. `pacing: easy_to_hard` begins with
    the easiest images and has brought in all after `pacing_epochs` (a fraction of the epochs): it helps when the budget
    is short or labels are noisy, and not otherwise (Wu, Dyer & Neyshabur 2021), so it is off.
    """

    balance: Literal["none", "classes", "weights"] = "none"
    buckets: Literal["none", "shape"] = "none"
    pacing: Literal["none", "easy_to_hard"] = "none"
    pacing_epochs: Annotated[float, Field(gt=0, le=1)] = 0.5


class Augmentation(Part):
    """`preset` acts on each image, MixUp (Zhang et al. 2018) and CutMix (Yun et al. 2019) on the batch.

    `mixup` and `cutmix` are the alphas of their beta distributions; 0 turns them off. `check` trains a short pair, with
    and without, and reports whether the preset helps validation here.
    """

    preset: AugmentationPreset | Auto = "auto"
    mixup: Annotated[float, Field(ge=0, le=10)] = 0.0
    cutmix: Annotated[float, Field(ge=0, le=10)] = 0.0
    check: bool = False


class Training(Part):
    epochs: Annotated[int, Field(ge=1, le=10_000)] = 10
    batch_size: Annotated[int, Field(ge=1, le=65_536)] | Auto = "auto"
    image_size: Annotated[int, Field(ge=8, le=1024)] | Auto = "auto"
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    augmentation: Augmentation = Augmentation()
    sampling: Sampling = Sampling()
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    early_stopping: EarlyStopping | None = EarlyStopping()
    checkpoint_every_steps: Annotated[int, Field(ge=1)] | Auto = "auto"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0

    @field_validator("augmentation", mode="before")
    @classmethod
    def _preset_alone(cls, given: object) -> object:
        """`"augmentation": "light"` is short for `{"preset": "light"}`."""
        return {"preset": given} if isinstance(given, str) else given


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
