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
    status: str = Field(description="queued, preparing, running, paused, succeeded, failed, cancelled; more may come")
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


class Cost(Answer):
    """In decimal strings; `projected` is the whole job at its present speed, as long as it runs."""

    accrued: str
    projected: str | None
    limit: str | None = Field(description="budget.max_cost")
    currency: str


class EfficiencySummary(Answer):
    """The newest efficiency account in brief; the whole of it lies behind `urls.efficiency`."""

    final: bool
    step: int
    verdict: str | None = Field(description="what holds the training back most")
    remedy: str | None
    ratio_to_bound: float | None = Field(description="speed / what the same model reaches with all batches at hand")
    measured: JsonObject = Field(description="what `plan.prediction` predicted, as it came")


class JobAnswer(WorkAnswer):
    """A job, and what came of it."""

    object: Literal["job"] = "job"
    pause_requested: bool
    profile_requested: bool
    priority: int
    phases: Phases
    progress: Progress | None
    best: Best | None
    plan: JsonObject | None = Field(description="every `auto` of the spec resolved, with the reason and the prediction")
    result: JsonObject | None = Field(description="final metrics of the best model and where the seconds went")
    efficiency: EfficiencySummary | None
    cost: Cost | None = Field(description="null where the profile has no price")
    device_hours: float = Field(description="devices x hours that all attempts used them")


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


class HoursRange(Answer):
    """Between which the training is expected to end; preparing the data and queueing come on top."""

    low: float
    high: float


class CostRange(Answer):
    """In decimal strings, for the hours between the two."""

    low: str
    high: str
    currency: str


class Missing(Answer):
    """What a plan had to do without, the value that was taken for it if any, and how to find it out."""

    name: str
    assumed: int | None
    message: str
    hint: str


class PlanAnswer(Answer):
    """What a job would do and take, were it booked now; `plan` is null while too little is known."""

    object: Literal["plan"] = "plan"
    plan: JsonObject | None = Field(description="every `auto` of the spec resolved, with the reason and the prediction")
    data_from: str | None = Field(description="the job or dataset check that knows the data, `hints`, or both")
    profile: str | None
    device: str | None
    device_name: str | None
    hours: HoursRange | None
    cost: CostRange | None = Field(description="null where the profile has no price")
    queue: Queue
    missing: list[Missing]
    warnings: list[str]


class Validation(Answer):
    """The answer to `validate_only`: the spec as it would be stored, what to know before sending it, and its plan."""

    valid: Literal[True] = True
    spec: JsonObject
    warnings: list[str]
    plan: PlanAnswer


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
    path: str
    step: int
    size_bytes: int
    files: dict[str, int]
    sha256: dict[str, str]
    about: JsonObject
    created_at: Instant
    download_url: str


class EfficiencyAnswer(Answer):
    """Where the time and the money went: the account of the training, beside its prediction."""

    object: Literal["efficiency"] = "efficiency"
    job_id: str
    step: int
    final: bool
    account: JsonObject
    measured: JsonObject
    prediction: JsonObject | None
    phases: dict[str, float] = Field(description="seconds up to each moment of the job from the one before it")
    cost: Cost | None
    device_hours: float


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
    device_memory_bytes: int = Field(description="of one GPU; 0 where there is none")
    cpu_features: list[str] = Field(description="instruction sets that decide about precision")
    draining: bool
    jobs: list[str]
    dataset_checks: list[str]
    last_seen_at: Instant
    version: str
