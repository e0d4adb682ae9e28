"""A search as its decisions see it: plain data out of the book, the same whoever looks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from api.book.status import HELD, TERMINAL, Status
from training_core.contract.errors import Reason
from training_core.contract.spec import JobSpec, Objective, Scalar, Search

Parameters = Mapping[str, Scalar]
Values = Mapping[str, float]


@dataclass(frozen=True)
class TrialView:
    """One trial. `at_rungs` are its metrics by rung; `values` the final ones of a trial that came to its end.

    `job_id` is another search's for a trial that is known from an earlier one. `sampler` is what Optuna noted of it.
    """

    number: int
    status: Status
    reason: Reason
    parameters: Parameters
    origin: str = "random"
    rung: int | None = None
    until: float | None = None
    reached: float = 0.0
    at_rungs: Mapping[int, Values] = field(default_factory=dict)
    values: Values | None = None
    checkpoint: str | None = None
    job_id: str | None = None
    sampler: Mapping[str, object] = field(default_factory=dict)

    @property
    def open(self) -> bool:
        return self.status not in TERMINAL

    @property
    def busy(self) -> bool:
        """Queued, or held by an attempt."""
        return self.status in HELD or self.status == Status.QUEUED

    @property
    def waits(self) -> bool:
        """At a rung, for a decision."""
        return self.status == Status.PAUSED and self.reason == Reason.RUNG_REACHED


@dataclass(frozen=True)
class StudyView:
    """A search and all of its trials by number; `earlier` are those of the searches that it starts warm from.

    `closed` says that no trial will start any more though there are fewer than the search may have: a finite space is
    used up, or the search has come to a limit. Where the job's `spec` is given no trial starts that it refuses.
    `absent` are trials that the search may have beyond the points of a finite space.
    """

    search: Search
    trials: Sequence[TrialView]
    earlier: Sequence[TrialView] = ()
    closed: bool = False
    spec: JobSpec | None = None
    absent: int = 0

    @property
    def to_come(self) -> int:
        """How many more trials may start. A population has its `size`, whatever `trials` says."""
        population = self.search.population
        wanted = self.search.trials if population is None else population.size
        return 0 if self.closed else max(0, wanted - len(self.trials))

    @property
    def objective(self) -> Objective:
        """The first one, by which trials are ranked at rungs."""
        return self.search.objectives[0]

    def score(self, values: Values | None) -> float:
        """Of some values by the first objective, greater is better; NaN where there is none."""
        value = math.nan if values is None else values.get(self.objective.metric, math.nan)
        return value if self.objective.maximize else -value

    def best(self) -> TrialView | None:
        """Of the trials that came to their end."""
        finished = [one for one in self.trials if one.values is not None and not math.isnan(self.score(one.values))]
        return max(finished, key=lambda one: self.score(one.values), default=None)


@dataclass(frozen=True)
class Start:
    """A new trial."""

    parameters: Parameters
    origin: str
    rung: int | None
    until: float | None
    sampler: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Promote:
    """A trial that waits at a rung goes on to `rung`, or without one to its end."""

    trial: int
    rung: int | None
    until: float | None
    why: str


@dataclass(frozen=True)
class Adopt:
    """A member of a population goes on from the checkpoint of trial `source`, with `parameters` of its own."""

    trial: int
    source: int
    parameters: Parameters
    rung: int | None
    until: float | None
    why: str


@dataclass(frozen=True)
class Prune:
    """A trial that waits at a rung will not go on; `why` names the rung, its value, and what it was compared with."""

    trial: int
    why: str


@dataclass(frozen=True)
class End:
    """The search is over."""

    reason: Reason
    message: str


Move = Start | Promote | Adopt | Prune | End
