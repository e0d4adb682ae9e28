"""The report: bounded, complete in its counts, and the same every time; and what was removed, in full."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.data.inspecting import make_items
from training_core.contract.spec import Cleaning, Dataset
from training_core.data.inspection.finding_texts import MEANINGS
from training_core.data.inspection.selection import inspect
from training_core.data.items import Items, Quarantined
from training_core.vision.inspection.report import (
    MOST_CLASSES,
    MOST_EXAMPLES,
    DataReport,
    Facts,
    make_report,
    removed_lines,
    size_histogram,
)
from training_core.vision.inspection.thumbnails import thumbnail

DATASET = Dataset.model_validate({"uri": "file://images"})
CLASSES = ["cats", "dogs", "birds"]


def pixels_of(row: int) -> NDArray[np.uint8]:
    return np.full((60, 80, 3), row % 256, np.uint8)


def report_of(items: Items, dataset: Dataset = DATASET, classes: list[str] | None = None) -> DataReport:
    facts = Facts("v1", "class-folders", CLASSES if classes is None else classes, 224, 3)
    return make_report(items, inspect(items, dataset), facts, pixels_of)


def bad(number: int, finding: str = "corrupt") -> Quarantined:
    return Quarantined(path=f"bad/{number}.jpg", label=1, split=-1, finding=finding, problem="it ends too soon")


def test_every_image_is_counted_once(tmp_path: Path) -> None:
    content = np.arange(1, 91, dtype=np.uint64)
    content[60:] = content[:30]
    quarantined = [bad(1), bad(2, "truncated"), bad(3, "truncated")]
    items = make_items(tmp_path, 90, quarantined, label=np.arange(90) % 3, content=content)
    report = report_of(items)
    assert (report.images, report.undecodable, report.removed) == (93, 3, 33)
    assert sum(report.splits.values()) == 60
    assert sum(one.train + one.validation + one.test + one.removed for one in report.classes) == 90
    findings = {one.finding: (one.action, one.count, one.removed) for one in report.findings}
    assert findings["truncated"] == ("remove", 2, 2)
    assert findings["exact_duplicates"] == ("remove", 30, 30)
    assert findings["dark"] == ("flag", 0, 0), "looked for, and not found"
    removed = [json.loads(line) for line in removed_lines(items, inspect(items, DATASET))]
    assert len(removed) == 33 == len({one["path"] for one in removed})
    assert removed[0] == {"path": "bad/1.jpg", "finding": "corrupt", "problem": "it ends too soon"}
    assert removed[-1] == {"path": "00089.jpg", "finding": "exact_duplicates", "copy_of": "00029.jpg"}


def test_the_worst_come_first_with_their_pictures(tmp_path: Path) -> None:
    sharpness = np.full(50, 0.7)
    sharpness[20:40] = np.linspace(0.30, 0.26, 20)
    report = report_of(make_items(tmp_path, 50, sharpness=sharpness))
    blurred = next(one for one in report.findings if one.finding == "blurred")
    assert (blurred.count, blurred.removed, len(blurred.examples)) == (20, 0, MOST_EXAMPLES)
    assert [one.path for one in blurred.examples[:2]] == ["00039.jpg", "00038.jpg"]
    assert blurred.examples[0].value == 0.26
    assert blurred.examples[0].label == "cats"
    assert blurred.examples[0].split in {"train", "validation"}
    assert "0.33" in str(blurred.threshold)
    shown = opened(blurred.examples[0].thumbnail)
    assert abs(int(np.asarray(shown)[30, 30, 0]) - 39) <= 2


def test_a_copy_names_its_original(tmp_path: Path) -> None:
    content = np.arange(1, 31, dtype=np.uint64)
    content[20] = content[5]
    report = report_of(make_items(tmp_path, 30, content=content))
    example = next(one for one in report.findings if one.finding == "exact_duplicates").examples[0]
    assert (example.path, example.copy_of, example.value) == ("00020.jpg", "00005.jpg", None)


def test_the_size_is_bounded(tmp_path: Path) -> None:
    count = 4000
    classes = ["x" * 5000 + str(number) for number in range(3000)]
    quarantined = [bad(number, finding) for finding in ("corrupt", "empty", "bomb") for number in range(500)]
    columns = {name: np.full(count, 0.0) for name in ("highlight", "information", "sharpness")}
    items = make_items(
        tmp_path,
        count,
        quarantined,
        label=np.arange(count) % 3000,
        content=np.ones(count, np.uint64),
        width=np.arange(1, count + 1) ** 2,
        **columns,
    )
    report = report_of(items, classes=classes)
    assert len(report.classes) == MOST_CLASSES
    assert report.class_count == 3000
    assert all(len(one.examples) <= MOST_EXAMPLES for one in report.findings)
    assert all(len(one.label) <= 400 for one in report.classes)
    assert len(report.sizes) <= 40
    assert len(report.model_dump_json()) < 1_500_000


def test_the_same_data_gives_the_same_report(tmp_path: Path) -> None:
    columns = {"sharpness": np.full(50, 0.2), "label": np.arange(50) % 3}
    one, other = (report_of(make_items(tmp_path / name, 50, [bad(1)], **columns)) for name in ("a", "b"))
    assert one.model_dump_json() == other.model_dump_json()
    assert DataReport.model_validate_json(one.model_dump_json()) == one


def test_a_report_of_nothing(tmp_path: Path) -> None:
    report = report_of(make_items(tmp_path, 0, [bad(1)]))
    assert (report.images, report.removed, report.splits) == (1, 1, {"train": 0, "validation": 0, "test": 0})
    assert report.imbalance is None


def test_balance_names_the_smallest_class_first(tmp_path: Path) -> None:
    items = make_items(tmp_path, 110, label=np.repeat([0, 1, 2], [80, 10, 20]), split=np.repeat([0, 1], [100, 10]))
    report = report_of(items)
    assert [(one.label, one.train) for one in report.classes] == [("dogs", 10), ("birds", 10), ("cats", 80)]
    assert report.imbalance == 8


def test_every_finding_of_the_policy_and_of_decoding_has_a_meaning() -> None:
    undecodable = {"corrupt", "truncated", "wrong_type", "bomb", "empty", "animated", "unreadable"}
    decoding = "".join(path.read_text() for path in Path("training_core/vision").glob("*.py"))
    raised = set(re.findall(r"(?:Undecodable\(|Bad\(\w+, )\"(\w+)\"", decoding))
    assert raised <= undecodable
    assert "bomb" in raised
    assert (set(Cleaning.model_fields) - {"max_bad_fraction"}) | undecodable <= set(MEANINGS)


def test_sizes_are_binned_by_half_octaves() -> None:
    bins = size_histogram(np.array([28] * 5 + [250, 300, 70_000]))
    assert [(one.from_pixels, one.to_pixels, one.count) for one in bins if one.count] == [
        (23, 32, 5),
        (181, 256, 1),
        (256, 362, 1),
        (65536, 92682, 1),
    ]


def opened(url: str | None) -> Image.Image:
    assert url is not None
    head, _, content = url.partition(",")
    assert head == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(content)))


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((258, 344, 3), (96, 72)),
        ((28, 28, 1), (56, 56)),
        ((1, 1, 1), (64, 64)),
        ((8, 4000, 3), (96, 8)),
        ((90, 80, 3), (80, 90)),
    ],
)
def test_thumbnails_are_small_jpegs(shape: tuple[int, int, int], size: tuple[int, int]) -> None:
    url = thumbnail(np.random.default_rng(0).integers(0, 256, shape, np.uint8))
    assert opened(url).size == size
    assert len(url) < 12_000
