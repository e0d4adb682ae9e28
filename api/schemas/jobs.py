"""Jobs and dataset checks."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from api.schemas.part import Answer, Instant, JsonObject


class Queue(Answer):
    """Place among those of the project that wait for the same, and why: what the dispatcher's last look came to."""

    position: int = Field(description="1 is next; counted up to 1001")
    code: str = Field(
        description="not_looked_at, no_worker, not_served, not_lending, slots_taken, slots_awaited, kept_for_another, "
        "checks_full, changing, no_trial_yet, next; slot_free in plans; more may come"
    )
    reason: str
    looked_at: Instant | None = Field(description="when the last look was; null before the first one, and in plans")


class Phases(Answer):
    """When the job got where, first time each; `queued` moves when it is queued again."""

    queued: Instant
    dispatched: Instant | None
    data_ready: Instant | None
    processes_up: Instant | None
    first_step: Instant | None
    finished: Instant | None


class Progress(Answer):
    """Of a training `epoch`, `step` and `samples_per_second`; of a search its trials, those ended and all.

    `step` and `epoch` are those of the last step, also after the end. `fraction` is of the steps that there are to do:
    1 for a job that succeeded, however early it stopped. `eta_seconds` is 0 at any end.
    """

    fraction: float
    epoch: float | None = None
    step: int | None = None
    eta_seconds: float | None
    samples_per_second: float | None = None
    trials_done: int | None = None
    trials: int | None = None


class Best(Answer):
    """The best checkpoint so far, by the metric that early stopping watches; of a search, its best trial so far.

    `value` is that metric's; of a search its first objective's, at the end of the trial or at its last rung.
    `checkpoint` is an id that `model.weights` takes, null where it is not kept any more.
    """

    trial: int
    value: float | None
    checkpoint: str | None
    step: int | None
    metrics: JsonObject


class JobError(Answer):
    code: str
    message: str
    hint: str | None = None
    trial: int | None = Field(default=None, description="of a search, the first one that ended so")
    phase: str | None = None
    rank: int | None = None
    exit_code: int | None = None
    log_excerpt: str | None = None


class DataReportSummary(Answer):
    """What inspection found, in numbers; the report itself lies behind `urls.data_report`."""

    dataset_version: str
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
    hosts: list[str] = Field(description="workers that have it now; once it has ended, those that had it")
    created_at: Instant
    updated_at: Instant
    queue: Queue | None
    warnings: list[str] = Field(description="what its client should know while it waits: that no worker could do it")
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
    study: JsonObject | None = Field(description="of a search: its trials by status, its ladder, its best so far")
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


class EfficiencyAnswer(Answer):
    """Where the time and the money went: the account of the training, beside its prediction."""

    object: Literal["efficiency"] = "efficiency"
    job_id: str
    trial: int | None = Field(description="of a search, the one that the account is of")
    step: int
    final: bool
    account: JsonObject
    measured: JsonObject
    prediction: JsonObject | None
    phases: dict[str, float] = Field(description="seconds up to each moment from the one before it")
    cost: Cost | None
    device_hours: float
