"""Optuna and Ray Tune before the table of recorded trainings, each by its own code.

Optuna is asked and told as its documentation shows. Of Ray Tune its random search draws (`generate_variants`) and its
scheduler decides (`AsyncHyperBandScheduler.on_trial_result`); its cluster would only carry the table's numbers from one
process to another, and stays off.

Both may report at each 128th of a training, as after each epoch of a training of 128, and begin to prune at the first.
Between the points at which a pruner decides anything nothing is reported: it would not look.
"""

from __future__ import annotations

import importlib.util
from collections import deque
from typing import Any

import optuna

from benchmarks.search.courses import ACCURACY, Choice, Table
from benchmarks.search.pool import Work, ordered

UNITS = 128  # of a whole training
MOST_TRIALS = 1000


def has_ray() -> bool:
    return importlib.util.find_spec("ray") is not None


class OptunaSearch:
    """`sampler` and, with `pruner`, Optuna's Hyperband, by their defaults."""

    def __init__(
        self, table: Table, sampler: optuna.samplers.BaseSampler, seed: int, *, pruner: bool, trials: int = MOST_TRIALS
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._table, self._wanted = table, trials
        hyperband = optuna.pruners.HyperbandPruner(max_resource=UNITS)
        # Hyperband deals brackets by the study's name.
        self._study = optuna.create_study(
            study_name=f"seed {seed}",
            direction="maximize",
            sampler=sampler,
            pruner=hyperband if pruner else optuna.pruners.NopPruner(),
        )
        self._stops = [*powers(3), UNITS] if pruner else [UNITS]
        self._trials: dict[int, optuna.Trial] = {}
        self._going_on: deque[Work] = deque()

    def next(self) -> Work | None:
        if self._going_on:
            return self._going_on.popleft()
        if len(self._trials) == self._wanted:
            return None
        trial = self._study.ask()
        self._trials[trial.number] = trial
        return Work(trial.number, self._choice(trial), 0.0, self._stops[0] / UNITS)

    def _choice(self, trial: optuna.Trial) -> Choice:
        """Numbers as places in their row of the grid, as ours."""
        return tuple(
            trial.suggest_int(path, 0, len(values) - 1)
            if ordered(values)
            else values.index(trial.suggest_categorical(path, values))
            for path, values in self._table.grid.items()
        )

    def done(self, work: Work) -> None:
        trial, accuracy = self._trials[work.trial], self._table.at(work.choice, work.last)[ACCURACY]
        stop = round(work.last * UNITS)
        if stop == UNITS:
            self._study.tell(trial, accuracy)
            return
        trial.report(accuracy, stop)
        if trial.should_prune():
            self._study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            return
        after = self._stops[self._stops.index(stop) + 1]
        self._going_on.append(Work(work.trial, work.choice, work.last, after / UNITS))


def powers(base: int) -> list[int]:
    """Of `base` below `UNITS`: where a pruner with this reduction factor decides."""
    found = [1]
    while found[-1] * base < UNITS:
        found.append(found[-1] * base)
    return found


class RayAsha:
    """Random search under the asynchronous halving of Ray Tune, by its defaults."""

    def __init__(self, table: Table, seed: int) -> None:
        import numpy as np  # noqa: PLC0415  with Ray, which is not always there
        from ray import tune  # noqa: PLC0415
        from ray.tune.schedulers import AsyncHyperBandScheduler  # noqa: PLC0415
        from ray.tune.search.variant_generator import generate_variants  # noqa: PLC0415

        self._table = table
        self._scheduler = AsyncHyperBandScheduler(metric="accuracy", mode="max", max_t=UNITS)
        space = {
            path: tune.randint(0, len(values)) if ordered(values) else tune.choice(values)
            for path, values in table.grid.items()
        }
        random = np.random.RandomState(seed)
        self._draw = lambda: next(generate_variants(space, random_state=random))[1]
        self._stops = [*powers(4), UNITS]
        self._trials: dict[int, Any] = {}
        self._going_on: deque[Work] = deque()

    def next(self) -> Work | None:
        from ray.tune.experiment import Trial  # noqa: PLC0415

        if self._going_on:
            return self._going_on.popleft()
        if len(self._trials) == MOST_TRIALS:
            return None
        number = len(self._trials)
        trial = Trial("recorded", stub=True, trial_id=str(number))
        self._trials[number] = trial
        self._scheduler.on_trial_add(None, trial)
        return Work(number, self._choice(self._draw()), 0.0, self._stops[0] / UNITS)

    def _choice(self, drawn: dict[str, Any]) -> Choice:
        return tuple(
            int(drawn[path]) if ordered(values) else values.index(drawn[path])
            for path, values in self._table.grid.items()
        )

    def done(self, work: Work) -> None:
        trial, accuracy = self._trials[work.trial], self._table.at(work.choice, work.last)[ACCURACY]
        stop = round(work.last * UNITS)
        result = {"training_iteration": stop, "accuracy": accuracy}
        if stop == UNITS:
            self._scheduler.on_trial_complete(None, trial, result)
        elif self._scheduler.on_trial_result(None, trial, result) == "CONTINUE":
            after = self._stops[self._stops.index(stop) + 1]
            self._going_on.append(Work(work.trial, work.choice, work.last, after / UNITS))
