"""The trials of a search as a study in Optuna's memory, from which its samplers learn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import optuna
from optuna.distributions import BaseDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from api.book.status import Status
from api.search.space import canonical, distributions, encode
from api.search.view import StudyView, TrialView, Values
from training_core.contract.spec import Objective

GENERATION = "NSGAIISampler:generation"


@dataclass(frozen=True)
class Memory:
    """`learned_from` counts the trials that have a value, final or at a rung; `earlier` are those of other searches."""

    study: optuna.Study
    learned_from: int
    earlier: list[FrozenTrial]


def remember(view: StudyView, *, rungs_count_as_ends: bool = False) -> Memory:
    """Finished trials with their values; those that wait at a rung, were pruned there, or went on from it, by the
    value there; those under way without one as running, which keeps others from going where they are.

    Failed trials and those without a finite value are left out: they would pull the sampler about. With
    `rungs_count_as_ends` the newest value at a rung stands for the final one, for samplers that learn from ends alone.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    directions = [
        StudyDirection.MAXIMIZE if one.maximize else StudyDirection.MINIMIZE for one in view.search.objectives
    ]
    study = optuna.create_study(directions=directions)
    known = distributions(view.search.space)
    earlier, own = (
        [frozen for one in trials if (frozen := _frozen(view, one, known, rungs_count_as_ends)) is not None]
        for trials in (view.earlier, view.trials)
    )
    study.add_trials([*earlier, *own])
    return Memory(study, sum(one.state != TrialState.RUNNING for one in [*earlier, *own]), earlier)


def _frozen(
    view: StudyView, trial: TrialView, known: dict[str, BaseDistribution], rungs_count_as_ends: bool
) -> FrozenTrial | None:
    if trial.status in (Status.FAILED, Status.CANCELLED) or trial.origin == "retrain":
        return None
    values = _finite(trial.values, view.search.objectives)
    at_rungs = {} if len(view.search.objectives) > 1 else _at_rungs(trial, view.objective)
    if values is None and at_rungs and rungs_count_as_ends:
        values = [at_rungs[max(at_rungs)]]
    if values is not None:
        state = TrialState.COMPLETE
    elif at_rungs:
        state = TrialState.PRUNED
    elif trial.busy and not trial.at_rungs:
        state = TrialState.RUNNING
    else:
        return None
    point = encode(view.search.space, canonical(view.search.space, trial.parameters))
    return create_trial(
        state=state,
        values=values,
        params=point,
        distributions={name: known[name] for name in point},
        intermediate_values=at_rungs,
        system_attrs=_attributes(trial),
    )


def _finite(values: Values | None, objectives: Sequence[Objective]) -> list[float] | None:
    if values is None:
        return None
    found = [values.get(one.metric, math.nan) for one in objectives]
    return found if all(math.isfinite(value) for value in found) else None


def _at_rungs(trial: TrialView, objective: Objective) -> dict[int, float]:
    """Nothing for a trial that diverged since."""
    values = {rung: values.get(objective.metric, math.nan) for rung, values in trial.at_rungs.items()}
    return values if values and all(math.isfinite(value) for value in values.values()) else {}


def _attributes(trial: TrialView) -> dict[str, object]:
    """NSGA-II's first generation has also what it did not draw itself; the strategy of another search is its own."""
    own = dict(trial.sampler) if trial.job_id is None else {}
    return {GENERATION: 0, **own}
