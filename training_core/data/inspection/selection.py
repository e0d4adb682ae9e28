"""Which items are trained and evaluated on: first the cleaning policy, then the splits.

Findings are looked for in a fixed order, each among the images that the ones before it have left: bad looks,
conflicting labels, leakage, exact duplicates, near duplicates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training_core.contract.errors import Failed, Reason
from training_core.contract.spec import Action, Cleaning, Dataset
from training_core.data.inspection.findings import LOOKS, Look
from training_core.data.inspection.leakage import RULES, Copies
from training_core.data.inspection.split import make_splits
from training_core.data.items import Items
from training_core.data.samples import SPLITS

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Found:
    """One finding and what the policy did about it; `removed` holds those of `look.rows` that are left out, rising."""

    action: Action
    look: Look
    removed: Rows


@dataclass(frozen=True)
class Selection:
    """`splits` holds the rows, rising, of "train", "validation" and "test"; a row that was removed is in none.

    `made` names the splits that the dataset did not bring. Findings that the policy ignores are absent.
    """

    splits: dict[str, Rows]
    findings: dict[str, Found]
    made: list[str]


def select(items: Items, dataset: Dataset, classes: Sequence[str] = ()) -> Selection:
    """Applies `dataset.cleaning` and `dataset.split`; `classes` are names for the error.

    Raises `Failed(dataset_invalid)` when nothing is left to train or validate on, or a class lost its training images.
    """
    selection = inspect(items, dataset)
    check(items, selection, classes)
    return selection


def inspect(items: Items, dataset: Dataset) -> Selection:
    """What `select` does, without judging what is left: the report of a job that fails needs it too."""
    kept, findings = _clean(items, dataset.cleaning)
    splits, made = make_splits(items, kept, dataset.split)
    return Selection(splits, findings, made)


def check(items: Items, selection: Selection, classes: Sequence[str] = ()) -> None:
    """Raises `Failed(dataset_invalid)` as `select` does."""
    for name in ("train", "validation"):
        if not len(selection.splits[name]):
            raise Failed(Reason.DATASET_INVALID, f"no image is left for {name}{_losses(selection)}", _way_out(name))
    label = items.column("label")
    before = np.unique(label[items.column("split") <= SPLITS.index("train")])
    lost = np.setdiff1d(before, label[selection.splits["train"]])
    if len(lost):
        first = int(lost[0])
        name = classes[first] if first < len(classes) else str(first)
        message = f"the class {name!r} has no training image left{_losses(selection)}"
        raise Failed(Reason.DATASET_INVALID, message, _way_out("train"))


def _clean(items: Items, cleaning: Cleaning) -> tuple[NDArray[np.bool_], dict[str, Found]]:
    kept = np.ones(len(items), np.bool_)
    findings: dict[str, Found] = {}

    def apply(finding: str, look: Look) -> None:
        action: Action = getattr(cleaning, finding)
        removed = look.rows if action == "remove" else look.rows[:0]
        kept[removed] = False
        findings[finding] = Found(action, look, removed)

    for finding, look_at in LOOKS.items():
        if getattr(cleaning, finding) != "ignore":
            apply(finding, look_at(items))
    copies = Copies.of(items)
    for finding, rule in RULES.items():
        if getattr(cleaning, finding) != "ignore":
            apply(finding, rule(copies, kept))
    return kept, findings


def _losses(selection: Selection) -> str:
    lost = [f"{len(found.removed):,} {finding}" for finding, found in selection.findings.items() if len(found.removed)]
    return f" after {', '.join(lost)} were removed" if lost else ""


def _way_out(split: str) -> str:
    if split == "train":
        return "add images, or let dataset.cleaning flag what it removes"
    return "add images, or give the dataset a validation split of its own"
