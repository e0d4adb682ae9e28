"""Events, series of metrics, and files: checkpoints and artifacts."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from api.schemas.part import Answer, Instant, JsonObject


class EventAnswer(Answer):
    id: str
    seq: int
    type: str
    job_id: str
    trial: int | None
    created_at: Instant
    level: str
    message: str
    key_id: str | None = Field(description="of whose request caused it, if one did")
    data: JsonObject


class SeriesAnswer(Answer):
    """Columns of equal length; `times` are seconds since 1970."""

    trial: int
    name: str
    steps: list[int]
    epochs: list[float]
    times: list[float]
    values: list[float]
    total_points: int
    downsampled: bool


class MetricsAnswer(Answer):
    object: Literal["metrics"] = "metrics"
    job_id: str
    series: list[SeriesAnswer]
    cursor: int | None = Field(description="the highest step in this answer; pass it as `after` for what came later")


class CheckpointAnswer(Answer):
    """`id` is what `model.weights` and a teacher take."""

    id: str
    object: Literal["checkpoint"] = "checkpoint"
    trial: int
    attempt: int
    step: int
    epoch: float
    metrics: JsonObject = Field(description="of the evaluation at this very step; empty where none was made there")
    size_bytes: int
    files: dict[str, int] = Field(description="bytes by name")
    sha256: dict[str, str] = Field(description="of every file, by name, in hexadecimal digits")
    kept_because: str
    pinned: bool
    created_at: Instant
    download_url: str


class ArtifactAnswer(Answer):
    """A trace or an exported model: files by size, each with its sha256."""

    id: str
    object: Literal["artifact"] = "artifact"
    trial: int
    attempt: int
    kind: str
    format: str
    step: int
    size_bytes: int
    files: dict[str, int]
    sha256: dict[str, str]
    about: JsonObject
    created_at: Instant
    download_url: str
