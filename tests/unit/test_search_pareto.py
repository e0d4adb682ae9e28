"""The Pareto front against its definition."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from api.search.pareto import front

FEW = st.integers(0, 4).map(float)  # so that ties are common


def dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(mine <= theirs for mine, theirs in zip(one, other, strict=True))


@given(st.integers(1, 4).flatmap(lambda size: st.lists(st.tuples(*[FEW] * size), max_size=40)))
def test_the_front_is_what_nothing_dominates_in_order_of_the_first_number(losses: list[tuple[float, ...]]) -> None:
    found = front(losses)
    expected = {index for index, own in enumerate(losses) if not any(dominates(other, own) for other in losses)}
    assert set(found) == expected
    assert len(found) == len(expected)
    assert [losses[index] for index in found] == sorted(losses[index] for index in found)
