"""Which column holds what, and the values of a chunk of rows: checked, and named where they are wrong."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from training_core.contract.errors import Failed, Reason
from training_core.contract.spec import Dataset
from training_core.data.formats.splits import ALLOWED, UNSPLIT, split_of

IMAGE_NAMES = (
    "image",
    "path",
    "file_name",
    "filename",
    "file",
    "image_path",
    "image_file",
    "filepath",
    "file_path",
    "img",
)
LABEL_NAMES = ("label", "class", "category", "target", "labels", "class_name", "label_name", "cls", "fine_label", "y")
SPLIT_NAMES = ("split", "subset", "partition")
MOST_COLUMNS = 1000
LONGEST_NAME = 128


@dataclass(frozen=True)
class Chosen:
    """Names of columns; None where the dataset has none."""

    image: str
    label: str
    split: str | None
    weight: str | None
    difficulty: str | None
    group: str | None

    def names(self) -> list[str]:
        """Without the image."""
        return [name for name in (self.label, self.split, self.weight, self.difficulty, self.group) if name is not None]


def choose(available: Sequence[str], dataset: Dataset, where: str) -> Chosen:
    """Raises `Failed(dataset_invalid)` with the name of a column that is not there, and the nearest that is."""
    if len(available) > MOST_COLUMNS:
        raise invalid(where, f"has {len(available):,} columns", f"{MOST_COLUMNS:,} are the most; leave out the others")
    twice = sorted({name for name in available if available.count(name) > 1})
    if twice:
        raise invalid(
            where, f"has two columns called {twice[0][:LONGEST_NAME]!r}", "give every column a name of its own"
        )
    columns = dataset.columns
    split = _find(columns.split, SPLIT_NAMES, available) if columns.split is not None else None
    if columns.split not in {None, "auto"}:
        split = _need(columns.split, SPLIT_NAMES, available, where, "dataset.columns.split")
    return Chosen(
        image=_need(columns.image, IMAGE_NAMES, available, where, "dataset.columns.image"),
        label=_need(columns.label, LABEL_NAMES, available, where, "dataset.columns.label"),
        split=split,
        weight=_named(columns.weight, available, where, "dataset.columns.weight"),
        difficulty=_named(columns.difficulty, available, where, "dataset.columns.difficulty"),
        group=_named(dataset.split.group_by, available, where, "dataset.split.group_by"),
    )


def find_image(available: Sequence[str], dataset: Dataset) -> str | None:
    return _find(dataset.columns.image, IMAGE_NAMES, available)


def find_label(available: Sequence[str], dataset: Dataset) -> str | None:
    return _find(dataset.columns.label, LABEL_NAMES, available)


def _find(wanted: str | None, usual: Sequence[str], available: Sequence[str]) -> str | None:
    if wanted != "auto":
        return wanted if wanted in available else None
    folded = {name.strip().lower(): name for name in reversed(available)}
    return next((folded[name] for name in usual if name in folded), None)


def _need(wanted: str | None, usual: Sequence[str], available: Sequence[str], where: str, setting: str) -> str:
    found = _find(wanted, usual, available)
    return found if found is not None else _missing(wanted if wanted != "auto" else usual[0], available, where, setting)


def _named(wanted: str | None, available: Sequence[str], where: str, setting: str) -> str | None:
    return wanted if wanted is None or wanted in available else _missing(wanted, available, where, setting)


def _missing(wanted: str | None, available: Sequence[str], where: str, setting: str) -> str:
    names = [name[:LONGEST_NAME] for name in available]
    near = get_close_matches(str(wanted), names, 1, 0.5)
    nearest = f"; the nearest is {near[0]!r}" if near else ""
    listed = ", ".join(names[:12]) + (" …" if len(names) > 12 else "")
    raise invalid(where, f"has no column {wanted!r}{nearest}", f"set {setting} to one of: {listed}")


def invalid(where: str, what: str, hint: str) -> Failed:
    return Failed(Reason.DATASET_INVALID, f"{where} {what}", hint)


@dataclass
class Values:
    """Of a chunk: class names, and what else the columns gave."""

    names: pa.Array
    splits: NDArray[np.int8]
    weights: pa.Array | None
    difficulties: pa.Array | None
    groups: pa.Array | None

    def extra(self) -> dict[str, Any]:
        """Arguments of `Rows`."""
        return {
            "splits": self.splits,
            "weights": self.weights,
            "difficulties": self.difficulties,
            "groups": self.groups,
        }


@dataclass
class Interpreter:
    """Reads chunks of one table called `where`; `unit` is what it counts, and `names` those of integer labels."""

    where: str
    chosen: Chosen
    given_split: int = UNSPLIT
    unit: str = "row"
    names: list[str] | None = None
    _groups: dict[Any, int] = field(default_factory=dict)

    def values(self, columns: dict[str, Sequence[Any]], first: int) -> Values:
        """`columns` by name, `first` the number of their first row. Raises `Failed(dataset_invalid)` naming the row."""
        chosen, count = self.chosen, len(columns[self.chosen.label])
        labels = pa.array([self._label(value, first + i) for i, value in enumerate(columns[chosen.label])], pa.string())
        splits = np.full(count, self.given_split, np.int8)
        if chosen.split is not None:
            splits = np.fromiter(
                (self._split(v, first + i) for i, v in enumerate(columns[chosen.split])), np.int8, count
            )
        return Values(
            labels,
            splits,
            self._numbers(columns, chosen.weight, first, lowest=0.0),
            self._numbers(columns, chosen.difficulty, first, lowest=-math.inf),
            self._hashes(columns, chosen.group),
        )

    def _label(self, value: Any, row: int) -> str:
        if isinstance(value, int) and not isinstance(value, bool) and self.names is not None:
            if not 0 <= value < len(self.names):
                raise self._wrong(row, f"has the label {value}, and there are {len(self.names)} names of classes")
            return self.names[value]
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if value is None or isinstance(value, float | list | dict | bytes) or not (text := str(value).strip()):
            raise self._wrong(row, f"has no label in the column {self.chosen.label!r}")
        if text.lower() == "nan":
            raise self._wrong(row, f"has the label {text}")
        return text

    def _split(self, value: Any, row: int) -> int:
        split = split_of(value) if isinstance(value, str) else None
        if split is None:
            raise self._wrong(row, f"has the split {str(value)[:60]!r}; allowed are {ALLOWED}")
        return split

    def _numbers(
        self, columns: dict[str, Sequence[Any]], name: str | None, first: int, *, lowest: float
    ) -> pa.Array | None:
        if name is None:
            return None
        return pa.array([self._number(v, name, first + i, lowest) for i, v in enumerate(columns[name])], pa.float32())

    def _number(self, value: Any, name: str, row: int, lowest: float) -> float | None:
        if value is None or value == "":
            return None
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not math.isfinite(number) or number < lowest or abs(number) > 1e30:
            what = "a number" if lowest < 0 else "a number of 0 or more"
            raise self._wrong(row, f"has {str(value)[:60]!r} in the column {name!r}, which is not {what}")
        return number

    def _hashes(self, columns: dict[str, Sequence[Any]], name: str | None) -> pa.Array | None:
        if name is None:
            return None
        return pa.array([self._hash(value) for value in columns[name]], pa.int64())

    def _hash(self, value: Any) -> int | None:
        """A value gets the same number in every manifest; negative ones are left to those who need a mark."""
        if value is None or value == "":
            return None
        text = str(value)
        found = self._groups.get(text)
        if found is None:
            found = int.from_bytes(blake2b(text.encode(errors="replace"), digest_size=8).digest(), "little") >> 1
            if len(self._groups) < 100_000:
                self._groups[text] = found
        return found

    def _wrong(self, row: int, what: str) -> Failed:
        return invalid(f"{self.unit} {row} of {self.where}", what, "correct it, or take it out")
