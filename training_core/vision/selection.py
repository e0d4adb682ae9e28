"""The selection of a prepared dataset under one policy, with its report: worked out once, found again afterwards.

<version>/selections/<policy>.npz             int64 rows of train, validation and test
                     <policy>.report.json     DataReport
                     <policy>.removed.jsonl   every sample that is left out, with its reason
                     <policy>.json            Selected, written last
"""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from training_core.contract.errors import Failed, Reason
from training_core.contract.run_dir import write_atomically
from training_core.contract.spec import Dataset
from training_core.data.inspection.selection import Selection, check, inspect
from training_core.data.items import Items
from training_core.data.meta import read_meta
from training_core.vision.inspection.report import Facts, make_report, removed_lines
from training_core.vision.pack import Pack

SELECTION_FORMAT = 1


class Problem(BaseModel):
    """Why nothing can be trained on this selection."""

    model_config = ConfigDict(frozen=True)

    reason: Reason
    message: str
    hint: str | None


class Selected(BaseModel):
    """Counts by split and by finding; `problem` where the selection cannot be trained on."""

    model_config = ConfigDict(frozen=True)

    images: dict[str, int]
    findings: dict[str, int]
    removed: dict[str, int]
    problem: Problem | None


class Files:
    """Where a selection lies."""

    def __init__(self, folder: Path, dataset: Dataset) -> None:
        policy = dataset.cleaning.model_dump_json(exclude={"max_bad_fraction"}) + dataset.split.model_dump_json()
        name = hashlib.sha256(f"{SELECTION_FORMAT} {policy}".encode()).hexdigest()[:32]
        self.folder = folder / "selections"
        self.rows = self.folder / f"{name}.npz"
        self.report = self.folder / f"{name}.report.json"
        self.removed = self.folder / f"{name}.removed.jsonl"
        self.selected = self.folder / f"{name}.json"


def selected(folder: Path, dataset: Dataset) -> tuple[Selected, Files]:
    """Found, or made now. Two that make it at the same time write the same."""
    files = Files(folder, dataset)
    if not files.selected.exists():
        _make(folder, dataset, files)
    return Selected.model_validate_json(files.selected.read_bytes()), files


def _make(folder: Path, dataset: Dataset, files: Files) -> None:
    meta, items, pack = read_meta(folder), Items(folder), Pack(folder)
    selection = inspect(items, dataset)
    facts = Facts(
        dataset_version=meta.dataset_version,
        format=meta.format,
        classes=meta.classes,
        image_size=meta.image_size,
        channels=meta.channels,
        ignored=meta.ignored,
        ignored_count=meta.ignored_count,
    )
    report = make_report(items, selection, facts, pack.pixels)
    chosen = Selected(
        images=report.splits,
        findings={one.finding: one.count for one in report.findings if one.count},
        removed={one.finding: one.removed for one in report.findings if one.removed},
        problem=_problem(items, selection, meta.classes),
    )
    files.folder.mkdir(exist_ok=True)
    _write_rows(files.rows, selection)
    _write_removed(files.removed, items, selection)
    write_atomically(files.report, report.model_dump_json().encode())
    write_atomically(files.selected, chosen.model_dump_json().encode())


def _problem(items: Items, selection: Selection, classes: list[str]) -> Problem | None:
    try:
        check(items, selection, classes)
    except Failed as failed:
        return Problem(reason=failed.reason, message=failed.message, hint=failed.hint)
    return None


def _write_rows(path: Path, selection: Selection) -> None:
    temporary = path.with_name(f".{path.name}.{threading.get_native_id()}.tmp")
    with temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **{name: rows.astype(np.int64) for name, rows in selection.splits.items()})
    temporary.replace(path)


def _write_removed(path: Path, items: Items, selection: Selection) -> None:
    temporary = path.with_name(f".{path.name}.{threading.get_native_id()}.tmp")
    with temporary.open("wb") as file:
        file.writelines(removed_lines(items, selection))
    temporary.replace(path)
