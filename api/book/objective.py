"""What a finished trial is worth by the objectives of its search, and the words where that is nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping

from api.book.models import JsonObject
from training_core.contract.spec import Objective, Search

THROUGHPUT, DEVICE_SECONDS = "throughput/images_per_second", "device_seconds"


def values_of(search: Search, result: JsonObject | None, device_seconds: float) -> dict[str, float] | None:
    """Each objective's value by its metric, from a trial's last report; None where one is missing or not finite."""
    known = measured(result, device_seconds)
    values: dict[str, float] = {one.metric: known.get(one.metric, math.nan) for one in search.objectives}
    return values if all(math.isfinite(value) for value in values.values()) else None


def measured(result: JsonObject | None, device_seconds: float) -> dict[str, float]:
    """All that a trial was measured by. The book keeps NaN and infinities as strings, as a report has them."""
    facts: Mapping[str, object] = result or {}
    metrics = facts.get("metrics")
    known = {name: float(value) for name, value in metrics.items()} if isinstance(metrics, Mapping) else {}
    speed = facts.get("images_per_second")
    if isinstance(speed, int | float | str):
        known.setdefault(THROUGHPUT, float(speed))
    return {**known, DEVICE_SECONDS: device_seconds}


def best_first(search: Search, values: Mapping[int, Mapping[str, float]]) -> list[int]:
    """Trials by their final values. With several objectives those come first that the fewest others beat in all."""
    scores = {number: [_score(one, found) for one in search.objectives] for number, found in values.items()}

    def beaten(number: int) -> int:
        return sum(_beats(other, scores[number]) for other in scores.values())

    return sorted(scores, key=lambda number: (beaten(number), -scores[number][0], number))


def _score(one: Objective, values: Mapping[str, float]) -> float:
    return values[one.metric] if one.maximize else -values[one.metric]


def _beats(one: list[float], other: list[float]) -> bool:
    return one != other and all(mine >= theirs for mine, theirs in zip(one, other, strict=True))


def why_missing(search: Search, result: JsonObject | None) -> str:
    """For example `The training reported no test/accuracy; it reported validation/accuracy, validation/loss`."""
    known = measured(result, 0.0)
    wanted = [one.metric for one in search.objectives if not math.isfinite(known.get(one.metric, math.nan))]
    infinite = [name for name in wanted if name in known]
    if infinite:
        return f"The training reported {known[infinite[0]]} as {infinite[0]}"
    reported = ", ".join(sorted(known.keys() - {DEVICE_SECONDS})) or "no metric at all"
    return f"The training reported no {', '.join(wanted)}; it reported {reported}"
