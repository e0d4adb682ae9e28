"""What the API answers. Times are RFC 3339 in UTC, durations end in `_seconds`, enums are open: rely on `terminal`."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer

JsonObject = dict[str, Any]
Item = TypeVar("Item")

Instant = Annotated[
    datetime, PlainSerializer(lambda moment: moment.isoformat().replace("+00:00", "Z"), return_type=str)
]


class Answer(BaseModel):
    """NaN and infinities are the strings "NaN", "Infinity", "-Infinity": JSON has no such numbers."""

    model_config = ConfigDict(ser_json_inf_nan="strings", protected_namespaces=())


class Page(Answer, Generic[Item]):
    """One page, newest first unless said otherwise; pass `next_cursor` as `after` for the next."""

    object: Literal["list"] = "list"
    data: list[Item]
    has_more: bool
    next_cursor: str | None = None


class Queue(Answer):
    """Place among the queued jobs of the same profile, and what the job waits for."""

    position: int
    reason: str


class Phases(Answer):
    """When the job got where, first time each; `queued` moves when it is queued again."""

    queued: Instant
    dispatched: Instant | None
    data_ready: Instant | None
    processes_up: Instant | None
    first_step: Instant | None
    finished: Instant | None


class Progress(Answer):
    fraction: float
    epoch: float
    step: int
    eta_seconds: float
    samples_per_second: float


class Best(Answer):
    """The best checkpoint so far, by the metric that early stopping watches."""

    checkpoint: str
    step: int
    metrics: JsonObject


class JobError(Answer):
    code: str
    message: str
    hint: str | None = None
    phase: str | None = None
    rank: int | None = None
    exit_code: int | None = None
    log_excerpt: str | None = None


class DataReportSummary(Answer):
    """What inspection found, in numbers; the report itself lies behind `urls.data_report`."""

    dataset_version: str
    path: str = Field(description="its folder below the store")
    images: int
    findings: dict[str, int] = Field(description="images by finding")
    removed: dict[str, int] = Field(description="those among them that are left out")


class WorkAnswer(Answer):
    """What jobs and dataset checks have in common: what was asked (`spec`), where it is (`status`), why (`reason`)."""

    id: str
    object: str
    name: str | None
    external_id: str | None
    status: str = Field(description="queued, preparing, running, succeeded, failed, cancelled; more may come")
    terminal: bool
    reason: str
    status_detail: str | None
    actions: list[str]
    cancel_requested: bool
    labels: dict[str, str]
    metadata: dict[str, str]
    attempt: int
    hosts: list[str]
    created_at: Instant
    updated_at: Instant
    queue: Queue | None
    data: JsonObject | None = Field(description="the dataset as it was found: version, classes, images by split")
    data_report: DataReportSummary | None
    error: JobError | None
    spec: JsonObject
    urls: dict[str, str]


class JobAnswer(WorkAnswer):
    """A job, and what came of it."""

    object: Literal["job"] = "job"
    priority: int
    phases: Phases
    progress: Progress | None
    best: Best | None
    plan: JsonObject | None = Field(description="every `auto` of the spec resolved, with the reason")
    result: JsonObject | None = Field(description="final metrics of the best model and where the seconds went")


class CheckPhases(Answer):
    """When the check got where, first time each; `queued` moves when it is queued again."""

    queued: Instant
    dispatched: Instant | None
    data_ready: Instant | None
    finished: Instant | None


class DatasetCheckAnswer(WorkAnswer):
    """A dataset check: a job that ends when its data is inspected and prepared, and is never `running`."""

    object: Literal["dataset_check"] = "dataset_check"
    phases: CheckPhases


class Validation(Answer):
    """The answer to `validate_only`: the spec as it would be stored, and what to know before sending it."""

    valid: Literal[True] = True
    spec: JsonObject
    warnings: list[str]


class EventAnswer(Answer):
    id: str
    seq: int
    type: str
    job_id: str
    trial: int | None
    created_at: Instant
    level: str
    message: str
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
    id: str
    object: Literal["checkpoint"] = "checkpoint"
    trial: int
    attempt: int
    path: str
    step: int
    epoch: float
    metrics: JsonObject
    size_bytes: int
    sha256: str = Field(description="of the manifest, which holds the sha256 of every file")
    files: dict[str, int]
    kept_because: str
    created_at: Instant
    download_url: str


class ProfileAnswer(Answer):
    name: str
    device: str
    devices: int
    price_per_hour: str
    currency: str
    description: str
    available: bool = Field(description="a live worker can serve it at all")
    free: int = Field(description="how many such jobs could start now")


class WorkerAnswer(Answer):
    name: str
    host: str
    status: str
    device: str
    device_name: str
    slots: int
    slots_free: int = Field(description="slots that no training holds; jobs whose data is being prepared hold none")
    cores: int
    memory_bytes: int
    draining: bool
    jobs: list[str]
    dataset_checks: list[str]
    last_seen_at: Instant
    version: str
