"""What inspection found, for people: counts, the worst examples with pictures, and what was done and why.

Its size is bounded whatever the data holds; `removed_lines` is the complete list of what is left out.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from training_core.data.inspection.data_report import (
    MOST_CLASSES,
    MOST_EXAMPLES,
    MOST_IGNORED,
    ClassBalance,
    DataReport,
    Example,
    Finding,
    Ignored,
    LabelCheckResult,
    SizeBin,
)
from training_core.data.inspection.finding_texts import MEANINGS
from training_core.data.inspection.selection import Found, Selection
from training_core.data.items import Items, Quarantined
from training_core.data.samples import SPLITS
from training_core.vision.inspection.thumbnails import thumbnail

__all__ = [
    "MOST_CLASSES",
    "MOST_EXAMPLES",
    "DataReport",
    "Example",
    "Facts",
    "Finding",
    "LabelCheckResult",
    "make_report",
    "removed_lines",
    "size_histogram",
]

MOST_CHARACTERS = 400
CHUNK_ROWS = 65_536

Pixels = Callable[[int], NDArray[np.uint8]]


@dataclass(frozen=True)
class Facts:
    """What the report repeats from the preparation."""

    dataset_version: str
    format: str
    classes: Sequence[str]
    image_size: int
    channels: int
    ignored: Sequence[dict[str, str]] = field(default_factory=list)
    ignored_count: int = 0


def make_report(items: Items, selection: Selection, facts: Facts, pixels_of: Pixels) -> DataReport:
    """`pixels_of` gives `(height, width, channels) uint8` of a row; it is asked only for the examples shown."""
    writer = _Writer(items, selection, facts, pixels_of)
    undecodable = list(writer.undecodable())
    bad = sum(finding.count for finding in undecodable)
    in_splits = sum(len(rows) for rows in selection.splits.values())
    balance = writer.balance()
    smallest, largest = (balance[0].train, balance[-1].train) if balance else (0, 0)
    return DataReport(
        dataset_version=facts.dataset_version,
        format=facts.format,
        image_size=facts.image_size,
        channels=facts.channels,
        images=len(items) + bad,
        undecodable=bad,
        removed=len(items) + bad - in_splits,
        splits={name: len(rows) for name, rows in selection.splits.items()},
        splits_made=selection.made,
        class_count=len(facts.classes),
        classes=balance[:MOST_CLASSES],
        imbalance=largest / smallest if smallest else None,
        sizes=size_histogram(np.minimum(items.column("width"), items.column("height"))),
        findings=[*undecodable, *writer.findings()],
        ignored_count=facts.ignored_count,
        ignored=[
            Ignored(path=_short(one["path"]), reason=_short(one["reason"])) for one in facts.ignored[:MOST_IGNORED]
        ],
    )


def removed_lines(items: Items, selection: Selection) -> Iterator[bytes]:
    """One JSON object a line for every sample that is left out: path, finding, and the copy or the problem."""
    for bad in items.quarantined():
        yield _line({"path": bad.path, "finding": bad.finding, "problem": bad.problem})
    for finding, found in selection.findings.items():
        of = found.look.of
        for start in range(0, len(found.removed), CHUNK_ROWS):
            rows = found.removed[start : start + CHUNK_ROWS]
            paths = items.paths(rows)
            if of is None:
                yield from (_line({"path": path, "finding": finding}) for path in paths)
            else:
                originals = items.paths(of[np.searchsorted(found.look.rows, rows)])
                for path, original in zip(paths, originals, strict=True):
                    yield _line({"path": path, "finding": finding, "copy_of": original})


def size_histogram(shorter: NDArray[np.integer]) -> list[SizeBin]:
    """Two bins an octave from 1 px up, empty ones at the ends left out."""
    if not len(shorter):
        return []
    edges = np.unique(np.round(2.0 ** np.arange(0, 17, 0.5)).astype(np.int64))
    counts, _ = np.histogram(shorter, edges)
    filled = np.flatnonzero(counts)
    return [
        SizeBin(from_pixels=int(edges[i]), to_pixels=int(edges[i + 1]), count=int(counts[i]))
        for i in range(int(filled[0]), int(filled[-1]) + 1)
    ]


class _Writer:
    """Parts of the report that share the items, the selection and the class names."""

    def __init__(self, items: Items, selection: Selection, facts: Facts, pixels_of: Pixels) -> None:
        self._items = items
        self._selection = selection
        self._classes = facts.classes
        self._pixels_of = pixels_of
        self._label = items.column("label")
        self._given = items.column("split")

    def balance(self) -> list[ClassBalance]:
        count = len(self._classes)
        by_split = {
            name: np.bincount(self._label[rows], minlength=count) for name, rows in self._selection.splits.items()
        }
        whole = np.bincount(self._label, minlength=count)
        rest = whole - sum(by_split.values())
        return sorted(
            (
                ClassBalance(
                    label=_short(name),
                    train=int(by_split["train"][index]),
                    validation=int(by_split["validation"][index]),
                    test=int(by_split["test"][index]),
                    removed=int(rest[index]),
                )
                for index, name in enumerate(self._classes)
            ),
            key=lambda one: one.train,
        )

    def undecodable(self) -> Iterator[Finding]:
        """The most frequent first."""
        counts: Counter[str] = Counter()
        examples: dict[str, list[Example]] = {}
        for bad in self._items.quarantined():
            counts[bad.finding] += 1
            if counts[bad.finding] <= MOST_EXAMPLES:
                examples.setdefault(bad.finding, []).append(self._undecodable(bad))
        for finding, count in counts.most_common():
            yield Finding(
                finding=finding,
                meaning=MEANINGS[finding],
                action="remove",
                count=count,
                removed=count,
                examples=examples[finding],
            )

    def _undecodable(self, bad: Quarantined) -> Example:
        split = SPLITS[bad.split] if bad.split >= 0 else "none"
        return Example(path=_short(bad.path), label=self._name(bad.label), split=split, problem=_short(bad.problem))

    def findings(self) -> Iterator[Finding]:
        """All that the policy does not ignore, those without an image included: looked for, and not found."""
        for finding, found in self._selection.findings.items():
            yield Finding(
                finding=finding,
                meaning=MEANINGS[finding],
                action="remove" if found.action == "remove" else "flag",
                threshold=found.look.threshold,
                count=len(found.look.rows),
                removed=len(found.removed),
                examples=self._examples(found),
            )

    def _examples(self, found: Found) -> list[Example]:
        look = found.look
        worst = np.argsort(-look.severity.astype(np.float64), kind="stable")[:MOST_EXAMPLES]
        rows = look.rows[worst]
        originals = self._items.paths(look.of[worst]) if look.of is not None else [None] * len(rows)
        return [
            Example(
                path=_short(path),
                label=self._name(int(self._label[row])),
                split=self._split(int(row)),
                value=round(float(value), 4) if np.isfinite(value) else None,
                copy_of=_short(original) if original is not None and original != path else None,
                thumbnail=thumbnail(self._pixels_of(int(row))),
            )
            for row, path, value, original in zip(
                rows, self._items.paths(rows), look.values[worst], originals, strict=True
            )
        ]

    def _split(self, row: int) -> str:
        for name, rows in self._selection.splits.items():
            at = int(np.searchsorted(rows, row))
            if at < len(rows) and rows[at] == row:
                return name
        return SPLITS[self._given[row]] if self._given[row] >= 0 else "none"

    def _name(self, label: int) -> str:
        return _short(self._classes[label]) if 0 <= label < len(self._classes) else str(label)


def _short(text: str) -> str:
    return text if len(text) <= MOST_CHARACTERS else text[: MOST_CHARACTERS - 1] + "…"


def _line(content: dict[str, str]) -> bytes:
    return json.dumps(content, ensure_ascii=False).encode() + b"\n"
