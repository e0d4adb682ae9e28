"""What a job would do and take."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from api.schemas.jobs import Queue
from api.schemas.part import Answer, JsonObject


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


class WarmStart(Answer):
    """An earlier search of the same space on the same data; its `id` belongs into search.warm_start."""

    id: str
    name: str | None
    status: str
    trials: int = Field(description="that ended")
    best: JsonObject | None


class SearchPlan(Answer):
    """What a search takes as a whole, beside the plan of one whole training.

    `trainings` is the expected cost of all trials in whole trainings. The range of hours is that of the prediction.
    """

    trials: int
    parallel: int = Field(description="trials that hold devices at the same time, as far as it is known")
    share: float = Field(description="of one device or CPU slot, that each of them takes")
    ladder: list[float] = Field(description="the fractions of a whole training at which trials are compared")
    trainings: float
    hours: HoursRange | None
    device_hours: HoursRange | None
    cost: CostRange | None = Field(description="null where the profile has no price")
    warm_start: list[WarmStart] = Field(description="earlier searches that this one could start from, newest first")


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
    search: SearchPlan | None = Field(description="of a search as a whole; all else is of one whole training of it")
    queue: Queue
    missing: list[Missing]
    warnings: list[str]


class Validation(Answer):
    """The answer to `validate_only`: the spec as it would be stored, what to know before sending it, and its plan."""

    valid: Literal[True] = True
    spec: JsonObject
    warnings: list[str]
    plan: PlanAnswer
