"""Groups of copies, on made hashes, small and many."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from training_core.data.inspection.duplicates import components, group
from training_core.data.inspection.near_copies import COMPARED_WITH_ALL, FINE_BITS, fine_limit

FINE = [f"fine_{part}" for part in range(4)]


def columns(count: int, seed: int = 0) -> dict[str, NDArray[Any]]:
    """Images without any relation."""
    random = np.random.default_rng(seed)
    values: dict[str, NDArray[Any]] = {
        name: random.integers(1, 2**64, count, np.uint64) for name in ("content", "pixels", "phash", *FINE)
    }
    sizes = {name: np.full(count, 300, np.int32) for name in ("width", "height")}
    return {**values, **sizes, "information": np.full(count, 7, np.float32)}


def copy(values: dict[str, NDArray[Any]], rows: NDArray[np.int64], to: NDArray[np.int64], bits: int, seed: int) -> None:
    """Make the rows `to` near copies of `rows`: `bits` of 256 flipped, and an eighth as many of 64."""
    random = np.random.default_rng(seed)
    for name in ("phash", *FINE):
        values[name][to] = values[name][rows]
    for one in to:
        for place in random.choice(256, bits, replace=False):
            values[FINE[place // 64]][one] ^= np.uint64(1 << int(place % 64))
        for place in random.choice(64, bits // 8, replace=False):
            values["phash"][one] ^= np.uint64(1 << int(place))


def test_images_without_relation_are_alone() -> None:
    for count in (0, 1, 2, 3000):
        groups = group(columns(count))
        assert (groups.exact == -1).all()
        assert (groups.near == -1).all()
        assert len(groups.exact) == len(groups.near) == count


def test_a_group_is_named_by_its_first_row() -> None:
    values = columns(20)
    values["content"][[3, 9, 14]] = 5
    values["pixels"][[9, 17]] = 6
    groups = group(values)
    assert np.flatnonzero(groups.exact >= 0).tolist() == [3, 9, 14, 17], "file and pixels connect"
    assert set(groups.exact[[3, 9, 14, 17]]) == {3}
    assert (groups.near == -1).all(), "exact copies alone are no near group"


def test_no_file_is_no_copy_of_no_file() -> None:
    values = columns(20)
    values["content"][:] = 0
    assert (group(values).exact == -1).all()


def test_a_near_group_holds_the_exact_copies_of_its_members() -> None:
    values = columns(500)
    copy(values, np.array([10]), np.array([40]), 12, seed=1)
    for name in ("content", "phash", *FINE):
        values[name][70] = values[name][40]
    groups = group(values)
    assert np.flatnonzero(groups.near >= 0).tolist() == [10, 40, 70]
    assert set(groups.near[[10, 40, 70]]) == {10}
    assert groups.exact[[10, 40, 70]].tolist() == [-1, 40, 40]


def test_flat_images_are_near_nothing() -> None:
    values = columns(500)
    copy(values, np.array([10]), np.array([40]), 8, seed=1)
    values["information"][40] = 0.5
    assert (group(values).near == -1).all()


def test_another_shape_is_another_picture() -> None:
    values = columns(500)
    copy(values, np.array([10]), np.array([40]), 8, seed=1)
    values["width"][40] = 900
    assert (group(values).near == -1).all()


@pytest.mark.parametrize("count", [2000, COMPARED_WITH_ALL + 4000])
@pytest.mark.parametrize("bits", [0, 16, 32])
def test_near_copies_are_found_among_few_and_many(count: int, bits: int) -> None:
    values = columns(count)
    originals, copies = np.arange(100), np.arange(count - 100, count)
    copy(values, originals, copies, bits, seed=2)
    groups = group(values)
    assert np.mean(groups.near[copies] == originals) >= (1.0 if count == 2000 else 0.98)
    assert (groups.near >= 0).sum() <= 200, "and nothing else"


def test_the_limit_follows_the_data() -> None:
    rows = np.arange(3000, dtype=np.int32)
    free = [columns(3000)[name] for name in FINE]
    alike = [words & np.uint64(0x0101_0101_0101_0101) for words in free]
    assert (fine_limit(free, rows), fine_limit(alike, rows)) == (FINE_BITS[1], FINE_BITS[0])


def test_a_hash_that_a_hundred_thousand_share_is_no_trouble() -> None:
    values = columns(200_000)
    for name in ("phash", *FINE):
        values[name][:100_000] = values[name][0]
    groups = group(values)
    assert (groups.near[:100_000] == 0).all()
    assert (groups.near[100_000:] == -1).all()


def test_a_row_takes_less_than_a_hundred_bytes() -> None:
    values = columns(300_000)
    tracemalloc.start()
    groups = group(values)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100 * 300_000
    assert (groups.near >= 0).sum() == 0


def test_components_of_a_long_chain_and_in_any_order() -> None:
    count = 5000
    order = np.random.default_rng(0).permutation(count)
    chain = np.stack([order[:-1], order[1:]])
    assert (components(count, [chain[:, ::2], chain[:, 1::2]]) == 0).all()
    assert (components(6, [np.array([[5, 3], [4, 1]])]) == [0, 1, 2, 1, 4, 4]).all()
