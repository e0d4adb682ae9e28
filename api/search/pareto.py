"""The Pareto front: what no other trial beats in all objectives."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby


def front(losses: Sequence[tuple[float, ...]]) -> list[int]:
    """Indices of the vectors that none dominates, smaller being better, the smallest first number first.

    One dominates another that is nowhere better and somewhere worse; equal ones stand side by side. O(n log n) for two
    objectives (a sweep), O(n x front) for more. All numbers must be finite.
    """
    ranked = sorted(range(len(losses)), key=lambda index: losses[index])
    kept: list[int] = []
    lowest: list[tuple[float, ...]] = []  # what behind the first number is on the front so far
    for vector, equals in groupby(ranked, key=lambda index: losses[index]):
        rest = vector[1:]
        if any(all(low <= own for low, own in zip(known, rest, strict=True)) for known in lowest):
            continue  # the known one is no worse in the first number, and both are not equal
        if len(rest) <= 1:
            lowest = [rest]
        else:
            lowest.append(rest)
        kept += equals
    return kept
