"""What all trials of a search say together. Columns of one answer have equal length, in one order."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from api.schemas.part import Answer
from training_core.contract.spec import Scalar
from training_core.contract.spec.search import Direction


class ObjectiveAnswer(Answer):
    """What trials are judged by."""

    metric: str
    direction: Direction


class ParameterImportance(Answer):
    parameter: str
    importance: float = Field(description="of all parameters together 1")


class ImportanceTable(Answer):
    """Of one objective, the most important parameter first; empty where `reason` says why there is none yet."""

    metric: str
    direction: Direction
    trials: int = Field(description="that were ranked: those with a final value, and those that only came to a rung")
    finished: int = Field(description="those among them with a final value")
    parameters: list[ParameterImportance]
    reason: str | None


class ImportanceAnswer(Answer):
    """How much each parameter decides whether a trial is among the best (PED-ANOVA, Watanabe et al. 2023)."""

    object: Literal["importance"] = "importance"
    job_id: str
    data: list[ImportanceTable]


class ParetoPoint(Answer):
    trial: int
    values: dict[str, float]
    parameters: dict[str, Scalar]


class ParetoAnswer(Answer):
    """The trials that no other one beats in all objectives, the best by the first objective first."""

    object: Literal["pareto_front"] = "pareto_front"
    job_id: str
    objectives: list[ObjectiveAnswer]
    trials: int = Field(description="that were compared")
    data: list[ParetoPoint]


class Dimension(Answer):
    """One axis: a parameter with its range or its choices; null where a trial does not have it."""

    name: str
    type: Literal["float", "int", "categorical"]
    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: list[Scalar] | None = None
    values: list[Scalar]


class ValueColumn(Answer):
    metric: str
    direction: Direction
    values: list[float | None]


class ParallelCoordinatesAnswer(Answer):
    """All trials as columns, by number: what a parallel-coordinates plot or a data frame is made of."""

    object: Literal["parallel_coordinates"] = "parallel_coordinates"
    job_id: str
    trials: list[int]
    statuses: list[str]
    reached: list[float]
    parameters: list[Dimension]
    objectives: list[ValueColumn]


class ByNumber(Answer):
    """In the order of their numbers; `best` is the best value of this trial and all before it."""

    trials: list[int]
    values: list[float]
    best: list[float]


class ByDeviceSeconds(Answer):
    """In the order in which they ended; `device_seconds` are those that all attempts ended by then had used."""

    device_seconds: list[float]
    trials: list[int]
    best: list[float]


class ObjectiveHistory(Answer):
    """Of all trials that came to their end."""

    metric: str
    direction: Direction
    by_number: ByNumber
    by_device_seconds: ByDeviceSeconds


class HistoryAnswer(Answer):
    object: Literal["history"] = "history"
    job_id: str
    data: list[ObjectiveHistory]
