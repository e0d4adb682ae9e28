"""The lines a training process writes into `events.jsonl`: reports, on their way to becoming events in the book.

One JSON object a line, `{"seq": 1, "at": 1764000000.25, "kind": "metric", ...}`. `seq` counts from 1 without a gap
within one run dir. NaN and infinities are written as the strings "NaN", "Infinity" and "-Infinity".
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

JsonObject = dict[str, Any]


class Report(BaseModel):
    """What every line has: its number within the attempt and the wall time (seconds since 1970, UTC)."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    seq: int = Field(default=0, ge=0)
    at: float = 0.0


class Claimed(Report):
    """Written by the worker: this host took the attempt."""

    kind: Literal["claimed"] = "claimed"
    worker: str
    incarnation: str


class DataReported(Report):
    """The data was inspected, whether or not it can be trained on; `path` is the folder of its report in the store.

    `findings` counts images by finding (`exact_duplicates`, `corrupt` …), `removed` those among them that are left out.
    """

    kind: Literal["data_reported"] = "data_reported"
    dataset_version: str
    path: str
    images: int
    findings: dict[str, int]
    removed: dict[str, int]


class DataReady(Report):
    """The prepared form is complete; counts of images by split after cleaning, and class names in index order.

    `prepared` says how it came about: `made` (all images read), `updated` (with the unchanged images of an earlier
    version) or `found`. `image_size` is the side of the prepared square images in pixels.
    """

    kind: Literal["data_ready"] = "data_ready"
    dataset_version: str
    classes: list[str]
    images: dict[str, int]
    prepared: Literal["made", "updated", "found"]
    seconds: float
    channels: int = 0
    image_size: int = 0


class PlanChosen(Report):
    """Every `"auto"` of the spec, resolved, with the reason for each choice, keyed by its dotted path in the spec.

    `compute` and `prediction` are a `ComputePlan` and a `Prediction` (`training_core.planner`).
    """

    kind: Literal["plan_chosen"] = "plan_chosen"
    resolved: dict[str, str | int | float | bool | None]
    reasons: dict[str, str]
    total_steps: int
    total_epochs: int
    world_size: int
    compute: JsonObject = Field(default_factory=dict)
    prediction: JsonObject | None = None


class Probed(Report):
    """What short measurements on this device found: one `ProbeTable` (`training_core.planner.table`) for its key."""

    kind: Literal["probed"] = "probed"
    key: str
    table: JsonObject


class Started(Report):
    """Ranks are up and about to take the first step; `resumed_from_step` is 0 for a fresh start."""

    kind: Literal["started"] = "started"
    resumed_from_step: int = 0
    checkpoint: str | None = None


class FirstStep(Report):
    """The first optimizer step of this attempt is done."""

    kind: Literal["first_step"] = "first_step"
    step: int


class Metric(Report):
    """Values measured at one optimizer step, by name (`train/loss`, `throughput/images_per_second`).

    `measured_at` is the wall time of the measurement where it differs from `at` (a point repeated after a resume).
    """

    kind: Literal["metric"] = "metric"
    step: int = Field(ge=0)
    epoch: float = Field(ge=0)
    values: dict[str, float]
    measured_at: float | None = None


class Progress(Report):
    kind: Literal["progress"] = "progress"
    step: int
    epoch: float
    fraction: float = Field(ge=0, le=1)
    images_per_second: float
    eta_seconds: float


class CheckpointSaved(Report):
    """A complete, verified checkpoint lies at `path`, relative to the store; sizes (`files`) and `sha256` by name."""

    kind: Literal["checkpoint_saved"] = "checkpoint_saved"
    path: str
    step: int
    epoch: float
    metrics: dict[str, float]
    size_bytes: int
    kept_because: Literal["best", "last", "pinned"]
    files: dict[str, int]
    sha256: dict[str, str]


class CheckpointDeleted(Report):
    """Retention removed the checkpoint at `path`, or it is now kept for another reason (`kept_because`)."""

    kind: Literal["checkpoint_deleted"] = "checkpoint_deleted"
    path: str


class OomRecovered(Report):
    """A device ran out of memory; all ranks agreed to take the same images again in smaller pieces."""

    kind: Literal["oom_recovered"] = "oom_recovered"
    step: int
    micro_batch_before: int
    micro_batch_after: int
    batch_size: int


class Efficiency(Report):
    """The efficiency account so far (`efficiency.model.Account` as JSON); the last one of a run is final."""

    kind: Literal["efficiency"] = "efficiency"
    step: int
    final: bool
    account: JsonObject


class ArtifactSaved(Report):
    """A file set beside the checkpoints: a profiler trace or an exported model, complete at `path` in the store."""

    kind: Literal["artifact_saved"] = "artifact_saved"
    path: str
    artifact: Literal["trace", "export"]
    format: str
    step: int
    size_bytes: int
    files: dict[str, int]
    sha256: dict[str, str]
    about: JsonObject = Field(default_factory=dict)


class RungReached(Report):
    """A trial of a search came to where it ends for now, by `fraction` of its whole training.

    `values` are its metrics there, over the first `images` validation images in an order that all trials share.
    """

    kind: Literal["rung_reached"] = "rung_reached"
    rung: int = Field(ge=0)
    fraction: float = Field(gt=0, le=1)
    step: int
    epoch: float
    images: int
    values: dict[str, float]


class EarlyStopped(Report):
    """The training ended before its plan; `target` is there where it was reached, else the patience was used up."""

    kind: Literal["early_stopped"] = "early_stopped"
    step: int
    epoch: float
    metric: str
    best: float
    best_step: int
    patience: int
    target: float | None = None


class AlertRaised(Report):
    """Something a person should know while the job goes on: `nan`, `diverged`, `data_bound`, `checkpoint_damaged` …"""

    kind: Literal["alert_raised"] = "alert_raised"
    alert: str
    message: str
    data: JsonObject = Field(default_factory=dict)


class Summary(Report):
    """The end of a complete training: final metrics of the best model and where the seconds went.

    `largest_class_share` is the accuracy on the validation images of always naming the largest class there; whether the
    model is better than that by a standard error stands beside it. None where they are of one class.
    """

    kind: Literal["summary"] = "summary"
    metrics: dict[str, float]
    best_step: int
    best_checkpoint: str | None
    seconds: dict[str, float]
    images_seen: int
    images_per_second: float
    largest_class_share: float | None = None
    no_better_than_largest_class: bool = False


class Finished(Report):
    """Written by the worker, always last: the one outcome of the attempt, and how long it held its devices."""

    kind: Literal["finished"] = "finished"
    reason: str
    phase: str
    message: str | None = None
    hint: str | None = None
    rank: int | None = None
    exit_code: int | None = None
    log_excerpt: str | None = None
    held_seconds: float | None = Field(default=None, ge=0)


AnyReport = Annotated[
    Claimed
    | DataReported
    | DataReady
    | PlanChosen
    | Probed
    | Started
    | FirstStep
    | Metric
    | Progress
    | CheckpointSaved
    | CheckpointDeleted
    | OomRecovered
    | Efficiency
    | ArtifactSaved
    | RungReached
    | EarlyStopped
    | AlertRaised
    | Summary
    | Finished,
    Field(discriminator="kind"),
]
_adapter: TypeAdapter[AnyReport] = TypeAdapter(AnyReport)


def encode(report: AnyReport) -> str:
    """One line, without its line feed."""
    return report.model_dump_json()


def decode(line: str | bytes) -> AnyReport:
    """The report on a line; raises `pydantic.ValidationError` for anything else."""
    return _adapter.validate_json(line)
