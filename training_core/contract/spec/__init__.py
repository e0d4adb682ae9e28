"""What a client asks for: the job spec. Torch-free; the API, the worker and the training share it.

Every model is frozen and refuses unknown fields. `"auto"` is the default wherever it stands; the training resolves
it and reports the value with its reason in a `plan.chosen` event.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, JsonValue, field_validator, model_validator

from training_core.contract.spec.compute import Budget, Compute, Precision, Strategy
from training_core.contract.spec.data import (  # fmt: skip
    Action,
    Cleaning,
    Columns,
    Dataset,
    DatasetFormat,
    LabelCheck,
    Split,
)
from training_core.contract.spec.part import (
    Auto,
    LabelKey,
    LabelValue,
    Name,
    Part,
    ProfileName,
    SecretName,
    WeightsPlace,
)
from training_core.contract.spec.search import (  # fmt: skip
    AnyParameter,
    CategoricalParameter,
    FloatParameter,
    IntParameter,
    Objective,
    Population,
    Pruner,
    Scalar,
    Search,
)
from training_core.contract.spec.training import (  # fmt: skip
    Augmentation,
    AugmentationPreset,
    Distillation,
    EarlyStopping,
    MetricName,
    Optimizer,
    OptimizerName,
    Resizing,
    Sampling,
    Schedule,
    ScheduleName,
    Training,
    is_better,
)

__all__ = [
    "SPEC_VERSION", "Action", "AnyParameter", "Augmentation", "AugmentationPreset", "Auto", "Budget",
    "CategoricalParameter", "Cleaning", "Columns", "Compute", "Dataset", "DatasetFormat", "Distillation",
    "EarlyStopping", "ExportFormat", "FloatParameter", "IntParameter", "JobSpec", "LabelCheck", "LabelKey",
    "LabelValue", "MetricName", "Model", "ModelName", "Name", "Objective", "Optimizer", "OptimizerName", "Part",
    "Population", "Precision", "ProfileName", "Pruner", "Resizing", "Sampling", "Scalar", "Schedule", "ScheduleName",
    "Search", "SecretName", "Split", "Strategy", "TaskName", "Training", "WeightsPlace", "Work", "is_better",
]  # fmt: skip

SPEC_VERSION = 1

Work = Literal["train", "check"]
TaskName = Literal["image-classification"]
ModelName = Literal[
    "auto", "small_cnn", "small_resnet", "resnet18", "resnet50", "mobilenet_v3_small", "mobilenet_v3_large"
]
ExportFormat = Literal["safetensors", "torch_export", "onnx", "onnx_int8"]


EXAMPLES: list[JsonValue] = [
    {"task": "image-classification", "dataset": {"uri": "s3://pets/train/"}},
    {
        "name": "pets: ten epochs", "labels": {"team": "vision"},
        "task": "image-classification",
        "dataset": {"uri": "s3://pets/train/", "split": {"validation": 0.2, "group_by": "animal"}},
        "model": {"name": "resnet18", "pretrained": True},
        "training": {"epochs": 10, "augmentation": "standard", "early_stopping": {"metric": "validation/accuracy"}},
        "budget": {"max_device_hours": 2}, "exports": ["onnx"],
    },
    {
        "task": "image-classification", "dataset": {"uri": "s3://pets/train/"},
        "search": {
            "trials": 30,
            "space": {
                "training.optimizer.learning_rate": {"type": "float", "low": 0.0001, "high": 0.1, "log": True},
                "training.optimizer.name": {"type": "categorical", "choices": ["sgd", "adamw"]},
            },
        },
    },
]  # fmt: skip


class Model(Part):
    """`pretrained` starts from torchvision's published weights, `weights` from a checkpoint or a file.

    `weights` is the id of a checkpoint (`ckpt_…`), of a job, which stands for its best checkpoint (`job_…`), or the URI
    of a safetensors file.
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


class JobSpec(Part):
    """One training job, or a search of many trials. Stored as it was validated and never changed afterwards."""

    model_config = ConfigDict(json_schema_extra={"examples": EXAMPLES})

    name: Name | None = None
    external_id: Name | None = None
    task: TaskName
    dataset: Dataset
    model: Model = Model()
    compute: Compute = Compute()
    training: Training = Training()
    search: Search | None = None
    budget: Budget = Budget()
    exports: Annotated[list[ExportFormat], Field(max_length=4)] = Field(default_factory=list)
    priority: Annotated[int, Field(ge=-100, le=100)] = 0
    labels: Annotated[dict[LabelKey, LabelValue], Field(max_length=64)] = Field(default_factory=dict)
    metadata: Annotated[dict[LabelKey, LabelValue], Field(max_length=64)] = Field(default_factory=dict)

    @field_validator("exports")
    @classmethod
    def _each_once(cls, exports: list[ExportFormat]) -> list[ExportFormat]:
        if len(set(exports)) < len(exports):
            raise ValueError("a format stands twice in exports")
        return exports
