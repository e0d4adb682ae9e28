"""What `POST /v1/dataset_checks` takes: the data's part of a job spec. It is booked as a job whose work is `check`."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field, JsonValue

from training_core.contract.spec import Auto, Dataset, JobSpec, LabelKey, LabelValue, Name, Part, TaskName, Training

EXAMPLE: JsonValue = {
    "task": "image-classification", "dataset": {"uri": "s3://pets/train/", "format": "class-folders"}, "image_size": 96
}  # fmt: skip


class CheckSpec(Part):
    """Read, inspect and prepare the data as a job with this `dataset` and `image_size` would, and train nothing."""

    model_config = ConfigDict(title="DatasetCheckSpec", json_schema_extra={"examples": [EXAMPLE]})

    name: Name | None = None
    external_id: Name | None = None
    task: TaskName
    dataset: Dataset
    image_size: Annotated[int, Field(ge=8, le=1024)] | Auto = "auto"
    labels: Annotated[dict[LabelKey, LabelValue], Field(max_length=64)] = Field(default_factory=dict)
    metadata: Annotated[dict[LabelKey, LabelValue], Field(max_length=64)] = Field(default_factory=dict)

    def as_job(self) -> JobSpec:
        shared = {name: getattr(self, name) for name in _SHARED}
        return JobSpec(**shared, training=Training(image_size=self.image_size))

    @classmethod
    def of_job(cls, spec: JobSpec) -> CheckSpec:
        """The inverse of `as_job`."""
        shared = {name: getattr(spec, name) for name in _SHARED}
        return cls(**shared, image_size=spec.training.image_size)


_SHARED = ("name", "external_id", "task", "dataset", "labels", "metadata")
