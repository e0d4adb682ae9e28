"""How far a search is, as its job tells it (`job.study`)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from api.search.concurrency import Placing
from api.search.decide import bounded, leader
from api.search.ladder import strategy_of
from api.search.view import StudyView, TrialView, Values

JsonObject = dict[str, Any]


def summary(view: StudyView, counts: Mapping[str, int], placing: Placing) -> JsonObject:
    """`counts` are those of the trials by status; `best` is the best so far, by its final values or those at a rung."""
    best, view = leader(view), bounded(view)
    return {
        "trials": sum(counts.values()),
        "counts": dict(counts),
        "parallel": placing.parallel,
        "share": placing.share,
        "ladder": list(strategy_of(view.search).ladder(view)),
        "best": None if best is None else _best(best),
        "warnings": _warnings(view, placing),
    }


def _best(trial: TrialView) -> JsonObject:
    return {
        "trial": trial.number,
        "values": dict(_newest(trial)),
        "parameters": dict(trial.parameters),
        "checkpoint": trial.checkpoint,
    }


def _newest(trial: TrialView) -> Values:
    values = trial.values if trial.values is not None else trial.at_rungs[max(trial.at_rungs)]
    return {metric: value for metric, value in values.items() if math.isfinite(value)}


def _warnings(view: StudyView, placing: Placing) -> list[str]:
    found = []
    asked = view.search.parallel
    if asked != "auto" and asked > placing.parallel:
        found.append(f"search.parallel is {asked}, and {placing.parallel} trials fit the workers that are online")
    if "training.epochs" in view.search.space and len(strategy_of(view.search).ladder(view)) > 1:
        found.append(
            "training.epochs varies: at a rung trials are compared after equal parts of trainings of different lengths"
        )
    return found
