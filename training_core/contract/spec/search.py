"""Hyper-parameter search: what may vary, what counts as good, and what finding it may cost.

Paths are those of the spec's fields: `training.optimizer.learning_rate`. `space.py` says what is wrong with a space.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from training_core.contract.spec.part import Auto, FieldPath, Fraction, JobId, Part

ObjectiveName = Literal[
    "validation/accuracy", "validation/loss", "test/accuracy", "test/loss", "throughput/images_per_second",
    "device_seconds",
]  # fmt: skip
Direction = Literal["maximize", "minimize"]
SamplerName = Literal["random", "tpe", "grid", "cma_es", "nsga2"]
PrunerName = Literal["halving", "hyperband", "median", "none"]
Scalar = bool | int | float | str | None
RISING = frozenset({"validation/accuracy", "test/accuracy", "throughput/images_per_second"})


class Parameter(Part):
    """`when` makes it conditional: it exists only where each named parameter has one of the listed values."""

    when: Annotated[dict[FieldPath, Annotated[list[Scalar], Field(min_length=1)]], Field(max_length=8)] = Field(
        default_factory=dict
    )


class FloatParameter(Parameter):
    """Drawn evenly from `low` to `high`, in their logarithm with `log`, or from `low` on in steps of `step`."""

    type: Literal["float"]
    low: float
    high: float
    log: bool = False
    step: Annotated[float, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _a_range(self) -> FloatParameter:
        _check_range(self.low, self.high, log=self.log, step=self.step)
        return self


class IntParameter(Parameter):
    """As `FloatParameter`, of whole numbers; both ends belong to it."""

    type: Literal["int"]
    low: int
    high: int
    log: bool = False
    step: Annotated[int, Field(ge=1)] = 1

    @model_validator(mode="after")
    def _a_range(self) -> IntParameter:
        _check_range(self.low, self.high, log=self.log, step=self.step if self.step != 1 else None)
        return self


class CategoricalParameter(Parameter):
    """One of `choices`, which have no order."""

    type: Literal["categorical"]
    choices: Annotated[list[Scalar], Field(min_length=1, max_length=256)]

    @field_validator("choices")
    @classmethod
    def _each_once(cls, choices: list[Scalar]) -> list[Scalar]:
        if len({(type(choice), choice) for choice in choices}) < len(choices):
            raise ValueError("a choice stands twice in choices")
        return choices


AnyParameter = Annotated[FloatParameter | IntParameter | CategoricalParameter, Field(discriminator="type")]


class Objective(Part):
    """What a trial is judged by; `direction` follows from the metric where it is `auto`.

    `device_seconds` are those that the trial held its devices for.
    """

    metric: ObjectiveName = "validation/accuracy"
    direction: Direction | Auto = "auto"

    @property
    def maximize(self) -> bool:
        return self.metric in RISING if self.direction == "auto" else self.direction == "maximize"


class Pruner(Part):
    """When a trial is not worth going on with.

    `halving` is asynchronous successive halving (Li et al. 2020): of all trials that reached a rung, the best one in
    `reduction_factor` goes on to the next, which is as many times longer. `first_rung` is the fraction of a whole
    training that every trial gets; `auto` is the longest with which all trials together cost
    4.4 whole trainings, but no less than 1/128 of one.
    `median` gives a trial up whose value at an eighth of its training, or two, three …, is worse than the median of the
    others there (Golovin et al. 2017). `hyperband` is Optuna's. Trials come to a rung, end there with a checkpoint and
    give their devices back; those that go on continue from it.
    """

    name: PrunerName | Auto = "auto"
    reduction_factor: Annotated[int, Field(ge=2, le=16)] = 5
    first_rung: Fraction | Auto = "auto"


class Population(Part):
    """Population-based training (Jaderberg et al. 2017) in place of independent trials.

    `size` trainings go side by side. After each of `generations` equal parts a member of the worst `quantile` takes
    over weights and optimizer of one of the best, and its parameters changed: each multiplied by one of `perturbation`
    or, with `resample`, the probability of it, drawn anew.
    """

    size: Annotated[int, Field(ge=2, le=256)] = 8
    generations: Annotated[int, Field(ge=2, le=1000)] = 10
    quantile: Annotated[float, Field(gt=0, le=0.5)] = 0.25
    perturbation: tuple[Annotated[float, Field(gt=0, lt=1)], Annotated[float, Field(gt=1)]] = (0.8, 1.25)
    resample: Annotated[float, Field(ge=0, le=1)] = 0.25


class Search(Part):
    """Many trainings of one job, each a trial, in place of one.

    `points` are tried first, each whole or in part. `parallel` trials hold devices at the same time. `max_hours` is the
    time from the first trial on; `budget` of the job bounds what all trials together cost, `compute.max_hours` each
    trial. `warm_start` names earlier searches of the same space and data: what they found is known from the start and
    not trained again. `finish` says what happens to the best trial in the end: `continue` trains it to its full length
    where it is not, `retrain` trains its parameters once more from the start. `keep_trials` of the best trials keep
    their checkpoints; those of the others are deleted once they cannot go on.
    """

    space: Annotated[dict[FieldPath, AnyParameter], Field(min_length=1, max_length=64)]
    objective: Objective | Annotated[list[Objective], Field(min_length=1, max_length=4)] = Objective()
    trials: Annotated[int, Field(ge=1, le=100_000)] = 50
    parallel: Annotated[int, Field(ge=1, le=1024)] | Auto = "auto"
    sampler: SamplerName | Auto = "auto"
    pruner: Pruner = Pruner()
    population: Population | None = None
    points: Annotated[list[dict[FieldPath, Scalar]], Field(max_length=1000)] = Field(default_factory=list)
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    max_hours: Annotated[float, Field(gt=0, le=24 * 365)] | None = None
    warm_start: Annotated[list[JobId], Field(max_length=16)] = Field(default_factory=list)
    finish: Literal["auto", "none", "continue", "retrain"] = "auto"
    keep_trials: Annotated[int, Field(ge=1, le=1000)] = 5

    @field_validator("pruner", mode="before")
    @classmethod
    def _name_alone(cls, given: object) -> object:
        """`"pruner": "median"` is short for `{"name": "median"}`."""
        return {"name": given} if isinstance(given, str) else given

    @field_validator("objective")
    @classmethod
    def _each_metric_once(cls, given: Objective | list[Objective]) -> Objective | list[Objective]:
        if isinstance(given, list) and len({one.metric for one in given}) < len(given):
            raise ValueError("a metric stands twice in objective")
        return given

    @property
    def objectives(self) -> list[Objective]:
        return self.objective if isinstance(self.objective, list) else [self.objective]


def _check_range(low: float, high: float, *, log: bool, step: float | None) -> None:
    if low >= high:
        raise ValueError("low must be below high")
    if log and low <= 0:
        raise ValueError("a log range must lie above 0; raise low, or leave log out")
    if log and step is not None:
        raise ValueError("log and step exclude each other")
    if step is not None and step > high - low:
        raise ValueError("step is more than the range from low to high")
