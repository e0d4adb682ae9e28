"""A search's trials."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from api.schemas.jobs import EfficiencySummary, JobError, Progress
from api.schemas.part import Answer, Instant, JsonObject
from training_core.contract.spec import Scalar


class RungAnswer(Answer):
    """What a trial was worth at a rung, by the first `images` of the validation images."""

    rung: int
    fraction: float = Field(description="of a whole training")
    step: int
    images: int
    values: dict[str, float | str]
    reported_at: Instant


class TrialAnswer(Answer):
    """One training of a search. `parameters` are by their path in the spec; `values` are the final ones by metric."""

    object: Literal["trial"] = "trial"
    job_id: str
    number: int
    status: str = Field(description="as of a job, and pruned, which is no failure; more may come")
    terminal: bool
    reason: str
    why: str | None = Field(description="why it ended as it did, in words: which rung, which value, against what")
    origin: str | None = Field(description="where its parameters come from: point, random, tpe, population …")
    parameters: dict[str, Scalar]
    value: float | None = Field(description="of the first objective; null until the trial came to its end")
    values: dict[str, float] | None
    rungs: list[RungAnswer]
    until: float | None = Field(description="the fraction of a whole training that it goes to now; null: to its end")
    reached: float = Field(description="the fraction that it has come to")
    checkpoint: str | None = Field(description="its best one that is still kept")
    progress: Progress | None
    attempt: int
    device_seconds: float = Field(description="for which all of its attempts held devices, shares counted as such")
    error: JobError | None
    created_at: Instant
    started_at: Instant | None
    finished_at: Instant | None
    urls: dict[str, str]


class AttemptAnswer(Answer):
    """One stretch of a trial on one host; the last three add up to `device_seconds`, where it reported an account."""

    number: int
    worker: str
    reason: str | None
    devices: int
    share: float
    resumed_from: str | None = Field(description="the id of the checkpoint that it went on from")
    booked_at: Instant
    started_at: Instant | None
    finished_at: Instant | None
    device_seconds: float
    training_seconds: float | None
    evaluation_seconds: float | None
    overhead_seconds: float | None


class TrialDetail(TrialAnswer):
    """A trial with all that belongs to it; `spec` sent to POST /v1/jobs trains it once more, as a job of its own."""

    spec: JsonObject
    plan: JsonObject | None
    result: JsonObject | None
    efficiency: EfficiencySummary | None
    attempts: list[AttemptAnswer]


class SearchEfficiencyAnswer(Answer):
    """Where the device time of a search went, over all attempts of all of its trials.

    Overhead is what attempts held devices for beside steps and evaluations: starting, compiling, checkpoints.
    `unaccounted_seconds` are of attempts that ended, or still run, without an account of their own.
    """

    object: Literal["search_efficiency"] = "search_efficiency"
    job_id: str
    trials: int
    attempts: int
    device_seconds: float
    training_seconds: float
    evaluation_seconds: float
    overhead_seconds: float
    unaccounted_seconds: float
    overhead_per_trial_seconds: float | None = Field(description="the median over the trials, of device time")
    overhead_per_attempt_seconds: float | None = Field(description="the median over the attempts, of device time")
    device_hours: float
