"""The cleaning policy and the splits: every rule, on items made of a few columns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.inspecting import HASHES, make_items
from training_core.contract.errors import Failed, Reason
from training_core.contract.spec import Dataset
from training_core.data.inspection.selection import Selection, check, inspect, select
from training_core.data.items import Items

TRAIN, VALIDATION, TEST = 0, 1, 2


def policy(split: dict[str, Any] | None = None, **cleaning: str) -> Dataset:
    return Dataset.model_validate({"uri": "file://images", "cleaning": cleaning, "split": split or {}})


def found(selection: Selection, finding: str) -> list[int]:
    return selection.findings[finding].look.rows.tolist()


def removed(selection: Selection, finding: str) -> list[int]:
    return selection.findings[finding].removed.tolist()


def same(count: int, *groups: tuple[int, ...]) -> Any:
    """Values of a hash column: rows of a group share one."""
    values = np.arange(1, count + 1, dtype=np.uint64)
    for group in groups:
        values[list(group)] = group[0] + 1
    return values


def alike(count: int, *groups: tuple[int, ...]) -> dict[str, Any]:
    """Columns in which the rows of a group are near copies: one bit of the fine hash differs."""
    columns = {
        name: HASHES[number, :count].copy()
        for number, name in enumerate(("phash", "fine_0", "fine_1", "fine_2", "fine_3"))
    }
    for group in groups:
        for number, row in enumerate(group[1:]):
            for column in columns.values():
                column[row] = column[group[0]]
            columns["fine_0"][row] ^= np.uint64(1 << number)
    return columns


def rows(selection: Selection) -> dict[str, list[int]]:
    return {name: chosen.tolist() for name, chosen in selection.splits.items()}


def given_split(count: int, **rows: list[int]) -> Any:
    split = np.zeros(count, int)
    split[rows.get("validation", [])] = VALIDATION
    split[rows.get("test", [])] = TEST
    return split


# --- copies


def test_of_exact_duplicates_in_a_split_the_first_stays(tmp_path: Path) -> None:
    items = make_items(tmp_path, 10, content=same(10, (2, 5, 7)), split=given_split(10, validation=[8, 9]))
    selection = select(items, policy())
    assert removed(selection, "exact_duplicates") == [5, 7]
    assert selection.findings["exact_duplicates"].look.of is not None
    assert selection.findings["exact_duplicates"].look.of.tolist() == [2, 2]
    assert rows(selection) == {"train": [0, 1, 2, 3, 4, 6], "validation": [8, 9], "test": []}


def test_the_same_pixels_in_another_file_are_an_exact_duplicate_if_the_originals_had_one_size(tmp_path: Path) -> None:
    width = np.full(10, 300)
    width[6] = 600
    items = make_items(tmp_path, 10, pixels=same(10, (2, 5, 6)), width=width)
    assert removed(select(items, policy()), "exact_duplicates") == [5]


@pytest.mark.parametrize(("action", "counts"), [("flag", ([5, 7], [])), ("remove", ([5, 7], [5, 7]))])
def test_flagged_copies_are_found_and_stay(tmp_path: Path, action: str, counts: tuple[list[int], list[int]]) -> None:
    items = make_items(tmp_path, 10, content=same(10, (2, 5, 7)))
    selection = select(items, policy(exact_duplicates=action))
    assert (found(selection, "exact_duplicates"), removed(selection, "exact_duplicates")) == counts
    assert sum(map(len, selection.splits.values())) == 10 - len(counts[1])


def test_what_is_ignored_is_not_looked_for(tmp_path: Path) -> None:
    items = make_items(tmp_path, 10, content=same(10, (2, 5)), highlight=np.full(10, 0.1))
    selection = select(items, policy(exact_duplicates="ignore", dark="ignore"))
    assert not {"exact_duplicates", "dark"} & set(selection.findings)


@pytest.mark.parametrize("kind", ["exact", "near"])
def test_a_training_image_that_stands_in_an_evaluation_split_goes(tmp_path: Path, kind: str) -> None:
    groups = [(0, 6), (1, 8), (7, 9)]
    copies = {"content": same(10, *groups)} if kind == "exact" else alike(10, *groups)
    split = given_split(10, validation=[6, 7], test=[8, 9])
    selection = select(make_items(tmp_path, 10, split=split, **copies), policy())
    assert removed(selection, "leakage") == [0, 1, 7], "and between validation and test the validation copy"
    assert rows(selection) == {"train": [2, 3, 4, 5], "validation": [6], "test": [8, 9]}


def test_flagged_leakage_stays_and_is_found(tmp_path: Path) -> None:
    items = make_items(tmp_path, 10, content=same(10, (0, 9)), split=given_split(10, validation=[8, 9]))
    selection = select(items, policy(leakage="flag"))
    assert found(selection, "leakage") == [0]
    assert 0 in selection.splits["train"]


def test_copies_within_the_test_split_are_duplicates_and_no_leakage(tmp_path: Path) -> None:
    items = make_items(tmp_path, 10, content=same(10, (8, 9)), split=given_split(10, validation=[7], test=[8, 9]))
    selection = select(items, policy())
    assert (found(selection, "leakage"), removed(selection, "exact_duplicates")) == ([], [9])


def test_near_duplicates_are_flagged_and_removed_on_request(tmp_path: Path) -> None:
    items = make_items(tmp_path, 12, **alike(12, (1, 4, 6)))
    flagged, cleaned = select(items, policy()), select(items, policy(near_duplicates="remove"))
    assert found(flagged, "near_duplicates") == [4, 6] == removed(cleaned, "near_duplicates")
    assert removed(flagged, "near_duplicates") == []


def test_near_duplicates_under_different_labels_are_never_resolved(tmp_path: Path) -> None:
    label = np.zeros(12, int)
    label[[4, 5]] = 1
    items = make_items(tmp_path, 12, label=label, **alike(12, (1, 4)))
    assert found(select(items, policy(near_duplicates="remove")), "near_duplicates") == []


def test_an_exact_copy_is_not_also_a_near_one(tmp_path: Path) -> None:
    items = make_items(tmp_path, 12, content=same(12, (1, 4)), **alike(12, (1, 4)))
    assert found(select(items, policy(exact_duplicates="flag")), "near_duplicates") == []


def test_one_image_under_two_labels_is_flagged_and_all_copies_stay(tmp_path: Path) -> None:
    label = np.zeros(12, int)
    label[[4, 5]] = 1
    items = make_items(tmp_path, 12, label=label, content=same(12, (1, 2, 4)))
    selection = select(items, policy())
    assert found(selection, "conflicting_labels") == [1, 2, 4]
    assert found(selection, "exact_duplicates") == []
    assert sum(map(len, selection.splits.values())) == 12


def test_conflicting_copies_go_all_together_on_request(tmp_path: Path) -> None:
    label = np.zeros(12, int)
    label[[4, 5, 6]] = 1
    items = make_items(tmp_path, 12, label=label, content=same(12, (1, 2, 4)))
    selection = select(items, policy(conflicting_labels="remove"))
    assert removed(selection, "conflicting_labels") == [1, 2, 4]
    assert not {1, 2, 4} & set(np.concatenate(list(selection.splits.values())).tolist())


def test_leakage_counts_what_cleaning_has_left(tmp_path: Path) -> None:
    highlight = np.full(10, 0.9)
    highlight[9] = 0.1
    split = given_split(10, validation=[8, 9])
    items = make_items(tmp_path, 10, content=same(10, (0, 9)), split=split, highlight=highlight)
    selection = select(items, policy(dark="remove"))
    assert (removed(selection, "dark"), found(selection, "leakage")) == ([9], [])
    assert 0 in selection.splits["train"]


# --- splits


def test_a_given_split_is_kept(tmp_path: Path) -> None:
    split = given_split(20, validation=[3, 4], test=[0])
    selection = select(make_items(tmp_path, 20, split=split), policy({"validation": 0.5, "test": 0.3}))
    assert (selection.splits["validation"].tolist(), selection.splits["test"].tolist()) == ([3, 4], [0])
    assert selection.made == []


def test_fractions_are_of_the_whole_and_stratified(tmp_path: Path) -> None:
    label = np.repeat([0, 1], [300, 100])
    selection = select(make_items(tmp_path, 400, label=label), policy({"validation": 0.1, "test": 0.2}))
    shares = {name: np.bincount(label[chosen]).tolist() for name, chosen in selection.splits.items()}
    assert shares == {"train": [210, 70], "validation": [30, 10], "test": [60, 20]}
    assert selection.made == ["test", "validation"]


def test_the_seed_of_the_split_decides(tmp_path: Path) -> None:
    items = make_items(tmp_path, 100)
    first, again, other = (rows(select(items, policy({"seed": seed}))) for seed in (1, 1, 2))
    assert first == again != other


def test_groups_never_part(tmp_path: Path) -> None:
    group = np.arange(120) // 6
    items = make_items(tmp_path, 120, label=group % 2, group=group)
    selection = select(items, policy({"group_by": "patient", "validation": 0.2}))
    sides = [set(group[selection.splits[name]].tolist()) for name in ("train", "validation")]
    assert not sides[0] & sides[1]
    assert len(selection.splits["validation"]) == 24


def test_groups_larger_than_the_fraction_still_give_a_validation_split(tmp_path: Path) -> None:
    group = np.repeat(np.arange(5), 20)
    selection = select(make_items(tmp_path, 100, group=group), policy({"group_by": "patient", "validation": 0.05}))
    assert len(selection.splits["validation"]) == 20


def test_images_without_a_group_are_groups_of_their_own(tmp_path: Path) -> None:
    group = np.where(np.arange(100) < 50, 7, -1)
    selection = select(make_items(tmp_path, 100, group=group), policy({"group_by": "patient"}))
    assert len(selection.splits["validation"]) == 10
    assert min(selection.splits["validation"]) >= 50


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_copies_never_part_and_nothing_is_lost(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    count = data.draw(st.integers(20, 120))
    of = np.asarray(data.draw(st.lists(st.integers(0, count - 1), min_size=count, max_size=count)), np.uint64)
    content = np.where(np.arange(count) % 3 == 0, of + 1, np.arange(count, dtype=np.uint64) + 1000)
    label = np.asarray(data.draw(st.lists(st.integers(0, 2), min_size=count, max_size=count)))
    items = make_items(tmp_path_factory.mktemp("items"), count, content=content, label=label)
    fractions = {"validation": data.draw(st.sampled_from([0.05, 0.2, 0.5])), "test": 0.1}
    selection = inspect(items, policy(fractions, exact_duplicates="flag"))
    assert sorted(np.concatenate(list(selection.splits.values())).tolist()) == list(range(count))
    where = {row: name for name, chosen in selection.splits.items() for row in chosen.tolist()}
    for value in np.unique(content):
        assert len({where[row] for row in np.flatnonzero(content == value).tolist()}) == 1
    left = np.bincount(label[selection.splits["train"]], minlength=3)
    assert (left[np.bincount(label, minlength=3) > 0] > 0).all(), "each class keeps something to train on"


# --- what cannot be trained on


def fails(items: Items, dataset: Dataset, *words: str) -> None:
    with pytest.raises(Failed) as failure:
        select(items, dataset, ["cats", "dogs"])
    assert failure.value.reason == Reason.DATASET_INVALID
    assert failure.value.hint
    for word in words:
        assert word in failure.value.message


def test_nothing_left_to_train_on(tmp_path: Path) -> None:
    items = make_items(tmp_path, 10, highlight=np.full(10, 0.1))
    fails(items, policy(dark="remove"), "train", "10 dark")


def test_nothing_to_validate_on(tmp_path: Path) -> None:
    fails(make_items(tmp_path, 2, label=np.array([0, 1])), policy(), "validation")


def test_a_class_that_lost_all_its_training_images(tmp_path: Path) -> None:
    label = np.repeat([0, 1], [18, 2])
    highlight = np.where(label == 1, 0.1, 0.9)
    fails(make_items(tmp_path, 20, label=label, highlight=highlight), policy(dark="remove"), "'dogs'", "2 dark")


def test_a_class_that_was_only_in_the_test_split_is_no_loss(tmp_path: Path) -> None:
    label = np.repeat([0, 1], [18, 2])
    items = make_items(tmp_path, 20, label=label, split=given_split(20, test=[18, 19]))
    check(items, inspect(items, policy()))
