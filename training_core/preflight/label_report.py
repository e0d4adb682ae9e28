"""The label check as people and the next job read it: a part of the data report, and a manifest with difficulties."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from training_core.contract.run_dir import RunSpec
from training_core.data.inspection.finding_texts import MEANINGS
from training_core.data.inspection.label_errors import LabelErrors, hardest, label_errors
from training_core.storage.store import Store
from training_core.vision.dataset_view import Chosen
from training_core.vision.inspection.report import MOST_EXAMPLES, DataReport, Example, Finding, LabelCheckResult
from training_core.vision.inspection.thumbnails import thumbnail

REPORT, DIFFICULTY = "data_report.json", "difficulty.csv"
HARDEST = "hardest_examples"
COLUMNS = ("path", "label", "split", "suggested_label", "self_confidence", "difficulty")
CHUNK_ROWS = 65_536

Rows = NDArray[np.int64]
Values = NDArray[np.float32]


def folder_of(run: RunSpec) -> str:
    return f"jobs/{run.job_id}/data_report"


def write_label_check(
    store: Store, run: RunSpec, data: Chosen, rows: Rows, probabilities: Values, *, folds: int, epochs: int
) -> DataReport:
    """Add the result to the job's data report, which changes at once, after the difficulties were written.

    `probabilities` `(rows, classes)` are out of fold. Raises `FileNotFoundError` where the job has no data report.
    """
    labels = data.labels[rows]
    errors = label_errors(labels, probabilities)
    folder = folder_of(run)
    report = DataReport.model_validate_json(store.read(f"{folder}/{REPORT}"))
    store.write(f"{folder}/{DIFFICULTY}", b"".join(difficulty_lines(data, rows, probabilities, errors)))
    writer = _Examples(data, rows)
    suggested = dict(zip(errors.rows.tolist(), errors.suggested.tolist(), strict=True))
    hard = hardest(labels, probabilities, MOST_EXAMPLES)
    own = probabilities[np.arange(len(rows)), labels]
    result = LabelCheckResult(
        folds=folds,
        epochs=epochs,
        images=len(rows),
        accuracy=float((probabilities.argmax(axis=1) == labels).mean()),
        difficulty_file=DIFFICULTY,
    )
    found = [
        Finding(
            finding="label_errors",
            meaning=MEANINGS["label_errors"],
            action="flag",
            threshold="confident of another class than the label (confident learning); value: probability margin",
            count=len(errors.rows),
            removed=0,
            examples=writer.examples(errors.rows[:MOST_EXAMPLES], errors.margin, suggested),
        ),
        Finding(
            finding=HARDEST,
            meaning=MEANINGS[HARDEST],
            action="flag",
            threshold="value: probability of the given label",
            count=len(hard),
            removed=0,
            examples=writer.examples(hard, own[hard], suggested),
        ),
    ]
    report = report.model_copy(update={"label_check": result, "findings": [*report.findings, *found]})
    store.write(f"{folder}/{REPORT}", report.model_dump_json().encode())
    return report


def difficulty_lines(data: Chosen, rows: Rows, probabilities: Values, errors: LabelErrors) -> Iterator[bytes]:
    """A manifest in CSV, in pieces: difficulty is one less the out-of-fold probability of the given label.

    Test images, which nobody judged, stand in it without one, so that it describes the whole dataset.
    """
    classes, labels = data.meta.classes, data.labels[rows]
    suggested = labels.copy()
    suggested[errors.rows] = errors.suggested
    in_train = np.isin(rows, data.splits["train"])
    yield _csv([COLUMNS])
    for start in range(0, len(rows), CHUNK_ROWS):
        piece = np.arange(start, min(start + CHUNK_ROWS, len(rows)))
        own = probabilities[piece, labels[piece]].tolist()
        yield _csv(
            [
                path,
                classes[labels[at]],
                "train" if in_train[at] else "validation",
                classes[suggested[at]] if suggested[at] != labels[at] else "",
                f"{confidence:.6f}",
                f"{1 - confidence:.6f}",
            ]
            for path, at, confidence in zip(data.items.paths(rows[piece]), piece.tolist(), own, strict=True)
        )
    yield from _test_lines(data)


def _test_lines(data: Chosen) -> Iterator[bytes]:
    rows = data.splits["test"]
    for start in range(0, len(rows), CHUNK_ROWS):
        piece = rows[start : start + CHUNK_ROWS]
        labels = data.labels[piece].tolist()
        yield _csv(
            [path, data.meta.classes[label], "test", "", "", ""]
            for path, label in zip(data.items.paths(piece), labels, strict=True)
        )


def _csv(lines: Sequence[Sequence[str]] | Iterator[Sequence[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue().encode()


class _Examples:
    def __init__(self, data: Chosen, rows: Rows) -> None:
        self._data, self._rows = data, rows
        self._in_train: Callable[[int], bool] = set(data.splits["train"].tolist()).__contains__

    def examples(self, chosen: Rows, values: NDArray[np.floating], suggested: dict[int, int]) -> list[Example]:
        """`chosen` index the rows judged, `values` stand beside them."""
        data, classes = self._data, self._data.meta.classes
        return [
            Example(
                path=path[:400],
                label=classes[data.labels[row]][:400],
                split="train" if self._in_train(row) else "validation",
                value=round(float(value), 4),
                suggested_label=classes[suggested[at]][:400] if at in suggested else None,
                thumbnail=thumbnail(data.pack.pixels(row)),
            )
            for at, row, path, value in zip(
                chosen.tolist(),
                self._rows[chosen].tolist(),
                data.items.paths(self._rows[chosen]),
                values.tolist(),
                strict=False,
            )
        ]
