"""Where the next trial goes: points given by hand, all points of a grid, or what Optuna makes of the trials so far.

Optuna is asked from a study in memory that is built from the book's trials, so that there is no second record of them.
What its evolutionary samplers keep in mind lies with the trials too (`TrialView.sampler`).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from random import Random

import numpy as np
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, CmaEsSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import TrialState, create_trial
from pydantic import ValidationError

from api.search.ladder import pruner_of
from api.search.optuna_study import remember
from api.search.space import canonical, counted_points, decode, distance, distributions, encode, key, suggest
from api.search.view import Start, StudyView
from training_core.contract.errors import Failed
from training_core.contract.spec import Scalar, Search
from training_core.contract.spec.conflicts import check_together
from training_core.contract.spec.points import count, exists, written
from training_core.contract.spec.search import SamplerName
from training_core.contract.spec.space import apply

STARTUP = 10  # trials with a value, from which on TPE is asked
TRIES = 16  # a sampler that found a good place likes to go there again
DRAWS = 200  # where nearly all is known few draws are new

Point = dict[str, Scalar]
_PASSING = ("tpe:", "fixed_params")  # what Optuna notes of a trial and has no use for later


def ask(view: StudyView) -> Start | None:
    """The next trial, or None when the space is used up. Its rung is for the strategy to say."""
    return Asking(view).next()


def sampler_name(search: Search) -> SamplerName:
    """What `auto` is: TPE, and NSGA-II for several objectives where it can do the space."""
    if search.sampler != "auto":
        return search.sampler
    conditions = any(parameter.when for parameter in search.space.values())
    return "nsga2" if len(search.objectives) > 1 and not conditions else "tpe"


class Asking:
    """Asks for one new trial after the other; each that was given is under way for the next.

    Nothing is given twice, nor what an earlier search has trained. The same view and seed give the same trials.
    """

    def __init__(self, view: StudyView) -> None:
        self._search, self._spec = view.search, view.spec
        self._space = view.search.space
        self._distributions = distributions(self._space)
        self._memory = remember(view, rungs_count_as_ends=sampler_name(view.search) in ("cma_es", "nsga2"))
        self._known = {key(self._space, one.parameters) for one in (*view.earlier, *view.trials)}
        self._counted = counted_points(view.search)
        self._number = len(view.trials)
        self._next_point = 1 + max((_point_of(one.sampler) for one in view.trials), default=-1)

    def next(self) -> Start | None:
        """None when the space is used up."""
        start = self._given() or self._sampled() or self._left()
        if start is not None:
            self._known.add(key(self._space, start.parameters))
            self._number += 1
        return start

    def _given(self) -> Start | None:
        """The next of the points to try first; what one leaves open is drawn."""
        while self._next_point < len(self._search.points):
            index = self._next_point
            self._next_point += 1
            for attempt in range(TRIES):
                sampler = RandomSampler(seed=self._seed(attempt))
                start = self._new(self._draw(sampler, "point", self._search.points[index]))
                if start is not None:
                    return replace(start, sampler={**start.sampler, "point": index})
        return None

    def _sampled(self) -> Start | None:
        """Where the sampler goes, or of a space that can be counted the nearest point that is new."""
        name = sampler_name(self._search)
        if name in ("grid", "random") or (name == "tpe" and self._by_chance()):
            return None
        for attempt in range(TRIES):
            drawn = self._draw(self._sampler(name, self._seed(attempt)), name)
            start = self._new(drawn)
            if start is None and self._counted is not None:
                return self._undrawn(self._nearest(drawn.parameters), name)
            if start is not None:
                return start
        return None

    def _by_chance(self) -> bool:
        """At first, and every other trial where short trainings decide: they favour what learns fast at first, and TPE
        would look nowhere else (as in BOHB, Falkner et al. 2018)."""
        short = pruner_of(self._search) in ("halving", "hyperband")
        return self._memory.learned_from < STARTUP or (short and self._number % 2 == 1)

    def _left(self) -> Start | None:
        """Any point that is new: of a space that can be counted one after the other, in an order of chance."""
        origin = "grid" if sampler_name(self._search) == "grid" else "random"
        if self._counted is None:
            draws = (self._draw(RandomSampler(seed=self._seed(TRIES + attempt)), origin) for attempt in range(DRAWS))
            return next((start for draw in draws if (start := self._new(draw)) is not None), None)
        return self._undrawn(next((point for point in self._shuffled() if self._is_allowed(point)), None), origin)

    def _nearest(self, wanted: Mapping[str, Scalar]) -> Point | None:
        ordered = sorted(self._shuffled(), key=lambda point: distance(self._space, point, wanted))
        return next((point for point in ordered if self._is_allowed(point)), None)

    def _shuffled(self) -> Iterator[Point]:
        """Those of a counted space that are new, in the same order of chance for the whole search."""
        points = list((self._counted or {}).items())
        Random(self._search.seed).shuffle(points)  # noqa: S311  no secret
        return (point for name, point in points if name not in self._known)

    def _draw(self, sampler: BaseSampler, origin: str, given: Mapping[str, Scalar] | None = None) -> Start:
        """One draw, with the values that are `given`; the study has it as under way."""
        study = self._memory.study
        study.sampler = sampler
        if given:
            study.enqueue_trial(encode(self._space, {name: written(self._space[name], given[name]) for name in given}))
        trial = study.ask()
        point: Point = {}
        for name, distribution in self._distributions.items():
            if exists(self._space[name], point):
                point[name] = decode(self._space[name], suggest(trial, name, distribution))
        noted = study.get_trials(deepcopy=False)[-1].system_attrs
        kept = {name: value for name, value in noted.items() if not name.startswith(_PASSING)}
        return Start(canonical(self._space, point), origin, None, None, kept)

    def _new(self, drawn: Start) -> Start | None:
        """The draw that was just made, unless its point is known or makes no spec; then the study forgets it."""
        if key(self._space, drawn.parameters) not in self._known and self._is_allowed(drawn.parameters):
            return drawn
        study = self._memory.study
        study.tell(study.get_trials(deepcopy=False)[-1].number, state=TrialState.FAIL)
        return None

    def _undrawn(self, point: Point | None, origin: str) -> Start | None:
        """A point that the study did not draw, under way in it like the others."""
        if point is None:
            return None
        known = encode(self._space, point)
        used = {name: self._distributions[name] for name in known}
        self._memory.study.add_trial(create_trial(state=TrialState.RUNNING, params=known, distributions=used))
        return Start(point, origin, None, None)

    def _is_allowed(self, point: Mapping[str, Scalar]) -> bool:
        if self._spec is None:
            return True
        try:
            check_together(apply(self._spec, point))
        except (ValidationError, Failed):
            return False
        return True

    def _sampler(self, name: SamplerName, seed: int) -> BaseSampler:
        parameters = self._search.space.values()
        several = len(self._search.objectives) > 1
        with warnings.catch_warnings():  # only the tuner's thread comes here
            warnings.simplefilter("ignore", ExperimentalWarning)
            if name == "nsga2":
                return NSGAIISampler(population_size=generation_size(self._search), seed=seed)
            if name == "cma_es":
                stepped = any(count(one) is not None and not one.log for one in parameters if one.type != "categorical")
                source = self._memory.earlier if len(self._memory.earlier) >= STARTUP else None
                return CmaEsSampler(
                    seed=seed, with_margin=stepped, warn_independent_sampling=False, source_trials=source
                )
            conditions = any(one.when for one in parameters)
            return TPESampler(
                n_startup_trials=STARTUP, seed=seed, multivariate=not several or conditions, group=conditions
            )

    def _seed(self, attempt: int) -> int:
        return int(np.random.SeedSequence([self._search.seed, self._number, attempt]).generate_state(1)[0])


def generation_size(search: Search) -> int:
    """Of NSGA-II: small enough that a search has some five generations."""
    return max(4, min(50, search.trials // 5))


def _point_of(noted: Mapping[str, object]) -> int:
    index = noted.get("point", -1)
    return index if isinstance(index, int) else -1
