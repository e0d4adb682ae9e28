"""Manifests: what they may say, and how a wrong one is answered."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.opening import contents, labels, open_uri, refused, rows, splits, touch
from training_core.data.samples import Unreadable

IMAGES = ("images/1.png", "images/2.png", "images/3.png", "images/4.png")
FULL = [
    {"path": "images/1.png", "label": "cat", "split": "train", "weight": 1.5, "hard": 0.25, "patient": "p1"},
    {"path": "./images/2.png", "label": "dog", "split": "training", "weight": 0, "hard": -3, "patient": "p1"},
    {"path": "images/3.png", "label": "cat", "split": "dev", "weight": None, "hard": None, "patient": "p2"},
    {"path": "images/4.png", "label": "dog", "split": "test", "weight": 2, "hard": 1, "patient": None},
]
COLUMNS = {"weight": "weight", "difficulty": "hard"}
FULL_SPEC: dict[str, Any] = {"columns": COLUMNS, "split": {"group_by": "patient"}}


def write_csv(path: Path, records: list[dict[str, Any]], mark: str = ",") -> None:
    lines = [mark.join(records[0])]
    lines += [mark.join("" if value is None else str(value) for value in record.values()) for record in records]
    path.write_text("\n".join(lines) + "\n")


def write_jsonl(path: Path, records: list[dict[str, Any]]) -> None:
    path.write_text("\n".join(json.dumps(record) for record in records) + "\n\n")


def write_parquet(path: Path, records: list[dict[str, Any]]) -> None:
    pq.write_table(pa.Table.from_pylist(records), path)


def write(path: Path, records: list[dict[str, Any]]) -> Path:
    match path.suffix:
        case ".csv":
            write_csv(path, records)
        case ".tsv":
            write_csv(path, records, "\t")
        case ".jsonl":
            write_jsonl(path, records)
        case ".parquet":
            write_parquet(path, records)
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return touch(tmp_path / "data", *IMAGES)


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("of_file", [True, False])
@pytest.mark.parametrize("name", ["list.csv", "list.tsv", "list.jsonl", "list.parquet"])
def test_every_kind_says_the_same(tmp_path: Path, data: Path, name: str, of_file: bool, named: bool) -> None:
    file = write(data / name, FULL)
    spec = {**FULL_SPEC, "format": "manifest" if named else "auto"}
    samples, reader = open_uri(tmp_path, f"file://{file if of_file else data}", spec)
    assert samples.format == "manifest"
    assert contents(samples, reader) == {path: path.encode() for path in IMAGES}
    assert labels(samples) == dict(zip(IMAGES, ("cat", "dog", "cat", "dog"), strict=True))
    assert list(splits(samples).values()) == [0, 0, 1, 2]
    table = rows(samples)
    assert [row["weight"] for row in table] == [1.5, 0, None, 2]
    assert [row["difficulty"] for row in table] == [0.25, -3, None, 1]
    groups = [row["group"] for row in table]
    assert groups[0] == groups[1] != groups[2]
    assert groups[3] is None
    assert all(group is None or group >= 0 for group in groups)


def test_a_manifest_in_an_archive_and_beside_its_images(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        for path in IMAGES:
            archive.writestr(f"deep/{path}", path)
        archive.writestr("deep/metadata.csv", "file_name,label\n" + "".join(f"{path},{path[7]}\n" for path in IMAGES))
    samples, reader = open_uri(tmp_path, "zip://::file://p.zip")
    assert contents(samples, reader) == {f"deep/{path}": path.encode() for path in IMAGES}
    assert samples.classes == ["1", "2", "3", "4"]


def test_one_manifest_for_each_split(tmp_path: Path, data: Path) -> None:
    write(data / "train.csv", FULL[:2])
    write(data / "validation.csv", FULL[2:])
    samples, _ = open_uri(tmp_path, f"file://{data}", {"columns": {"split": None}})
    assert list(splits(samples).values()) == [0, 0, 1, 1]


def test_a_table_named_like_a_manifest_wins_over_others(tmp_path: Path, data: Path) -> None:
    write(data / "metadata.csv", FULL)
    write(data / "predictions.csv", FULL)
    samples, _ = open_uri(tmp_path, f"file://{data}")
    assert len(rows(samples)) == 4
    (data / "metadata.csv").unlink()
    write(data / "others.csv", FULL)
    refused(tmp_path, f"file://{data}", "dataset_invalid", "twice")


def test_a_manifest_in_each_split_folder(tmp_path: Path) -> None:
    """As Hugging Face's imagefolder has it."""
    data = tmp_path / "data"
    for split, names in (("train", ("1.png", "2.png")), ("test", ("1.png",))):
        touch(data / split, *names)
        lines = "file_name,label\n" + "".join(f"{name},{('cat', 'dog')[name == '2.png']}\n" for name in names)
        (data / split / "metadata.csv").write_text(lines)
    samples, reader = open_uri(tmp_path, f"file://{data}")
    assert splits(samples) == {"test/1.png": 2, "train/1.png": 0, "train/2.png": 0}
    assert set(contents(samples, reader).values()) == {b"1.png", b"2.png"}


def test_class_folders_win_over_a_table_that_only_lies_there(tmp_path: Path) -> None:
    data = touch(tmp_path / "data", "cat/1.png", "dog/1.png")
    (data / "results.csv").write_text("image,label\ncat/1.png,other\ndog/1.png,another\n")
    samples, _ = open_uri(tmp_path, f"file://{data}")
    assert (samples.format, samples.classes) == ("class-folders", ["cat", "dog"])
    (data / "results.csv").rename(data / "labels.csv")
    samples, _ = open_uri(tmp_path, f"file://{data}")
    assert (samples.format, samples.classes) == ("manifest", ["another", "other"])


def test_an_image_that_is_not_there_is_unreadable_and_the_rest_is_read(tmp_path: Path, data: Path) -> None:
    file = write(data / "list.csv", [*FULL, {**FULL[0], "path": "images/none.png"}])
    found = contents(*open_uri(tmp_path, f"file://{file}"))
    assert found["images/none.png"] == Unreadable("there is no such file")
    assert found["images/4.png"] == b"images/4.png"
    assert contents(*open_uri(tmp_path, f"file://{file}"), [4, 0, 4, 4, 1]) is not None


def test_the_labels_are_part_of_the_digest(tmp_path: Path, data: Path) -> None:
    digests = set()
    for label, split, weight in (("cat", "train", 1), ("dog", "train", 1), ("cat", "test", 1), ("cat", "train", 2)):
        changed = {**FULL[0], "path": "images/5.png", "label": label, "split": split, "weight": weight}
        file = write(data / "list.csv", [*FULL, changed])
        digests.add(open_uri(tmp_path, f"file://{file}", FULL_SPEC)[0].digest)
    assert len(digests) == 4


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"columns": {"label": "lable"}}, ("'lable'", "nearest is 'label'", "dataset.columns.label")),
        ({"columns": {"image": "pth"}}, ("'pth'", "nearest is 'path'", "dataset.columns.image")),
        ({"columns": {"split": "splat"}}, ("'splat'", "nearest is 'split'", "dataset.columns.split")),
        ({"columns": {"weight": "mass"}}, ("'mass'", "dataset.columns.weight", "patient")),
        ({"columns": {"difficulty": "harder"}}, ("'harder'", "nearest is 'hard'", "dataset.columns.difficulty")),
        ({"split": {"group_by": "patients"}}, ("'patients'", "nearest is 'patient'", "dataset.split.group_by")),
    ],
)
def test_a_column_that_is_not_there_is_named_with_the_nearest(
    tmp_path: Path, data: Path, spec: dict[str, Any], words: tuple[str, ...]
) -> None:
    file = write(data / "list.csv", FULL)
    refused(tmp_path, f"file://{file}", "dataset_invalid", "list.csv", *words, dataset={"format": "manifest", **spec})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"label": ""}, "no label"),
        ({"label": "  "}, "no label"),
        ({"label": "NaN"}, "has the label NaN"),
        ({"weight": -1}, "'-1' in the column 'weight'"),
        ({"weight": "nan"}, "'nan' in the column 'weight'"),
        ({"weight": "heavy"}, "'heavy' in the column 'weight'"),
        ({"hard": "inf"}, "'inf' in the column 'hard'"),
        ({"split": "holdout"}, "'holdout'; allowed are train, validation, test"),
        ({"split": ""}, "allowed are train, validation, test"),
        ({"path": ""}, "names no image"),
        ({"path": "../1.png"}, "not a safe name"),
        ({"path": "images/../../1.png"}, "not a safe name"),
        ({"path": "/etc/passwd"}, "not a safe name"),
        ({"path": "http://169.254.169.254/latest"}, "not a safe name"),
        ({"path": "s3://other/1.png"}, "not a safe name"),
        ({"path": "c:\\1.png"}, "not a safe name"),
    ],
)
@pytest.mark.parametrize("name", ["list.csv", "list.jsonl"])
def test_a_wrong_cell_is_named_by_its_row(
    tmp_path: Path, data: Path, name: str, change: dict[str, Any], words: str
) -> None:
    file = write(data / name, [*FULL[:3], {**FULL[3], **change}])
    row = f"row {5 if name.endswith('csv') else 4} of {name}"
    refused(tmp_path, f"file://{file}", "dataset_invalid", row, words, dataset=FULL_SPEC)


def test_an_image_that_is_listed_twice(tmp_path: Path, data: Path) -> None:
    file = write(data / "list.csv", [*FULL, {**FULL[0], "label": "dog"}])
    refused(tmp_path, f"file://{file}", "dataset_invalid", "'images/1.png' twice")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"path,label\n" + b"x" * (2**20 + 1), "line 2 of list.csv is longer than a mebibyte"),
        (b'path,label\n"' + b"x\n" * 100_000 + b'",a\n', "is not CSV: field larger than field limit"),
        (b"path,label\na\0b,c\n", "line 2 of list.csv holds a NUL byte"),
        ("path,label\nä.png,x\n".encode("latin-1"), "line 2 of list.csv is not UTF-8"),
        ("path,label\na.png,x\n".encode("utf-16"), "line 1 of list.csv holds a NUL byte"),
        (b"path,label,label\na,b,c\n", "two columns called 'label'"),
        (b"path,label\na.png,x,y\n", "row 2 of list.csv has 3 cells, and the header 2"),
        (b'path,label\n"a.png,x\n', "is not CSV"),
        (b",".join(b"c%d" % n for n in range(50_000)) + b",path,label\n", "50,002 columns"),
        (b"path,label\n", "no class folders"),
        (b"", "no column 'image'"),
    ],
)
def test_csv_that_cannot_be_read(tmp_path: Path, data: Path, content: bytes, words: str) -> None:
    (data / "list.csv").write_bytes(content)
    refused(tmp_path, f"file://{data / 'list.csv'}", "dataset_invalid", words, dataset={"format": "manifest"})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"path": "a", "label": "b"}\n[1, 2]\n', "line 2 of list.jsonl is not a JSON object"),
        (b'{"path": "a", "label": "b"}\n{"path":\n', "line 2 of list.jsonl is not JSON"),
        (b"[" * 100_000 + b"\n", "line 1 of list.jsonl is not JSON"),
        (b'{"path": 7, "label": "b"}\n', "row 1 of list.jsonl names no image"),
        (b'{"path": "a", "label": {"x": 1}}\n', "no label in the column 'label'"),
        (b'{"path": "a", "label": NaN}\n', "no label in the column 'label'"),
    ],
)
def test_json_lines_that_cannot_be_read(tmp_path: Path, data: Path, content: bytes, words: str) -> None:
    (data / "list.jsonl").write_bytes(content)
    refused(tmp_path, f"file://{data / 'list.jsonl'}", "dataset_invalid", words, dataset={"format": "manifest"})


def test_quotes_line_feeds_and_a_byte_order_mark(tmp_path: Path, data: Path) -> None:
    text = '\ufeffpath;label;note\r\nimages/1.png;"a cat";"two\r\nlines"\r\n\r\nimages/2.png;"dog ""Rex""";x\r\n'
    (data / "list.csv").write_bytes(text.encode())
    samples, _ = open_uri(tmp_path, f"file://{data / 'list.csv'}")
    assert labels(samples) == {"images/1.png": "a cat", "images/2.png": 'dog "Rex"'}


def test_a_manifest_that_is_damaged(tmp_path: Path, data: Path) -> None:
    file = write(data / "list.parquet", FULL)
    file.write_bytes(file.read_bytes()[:-20])
    refused(tmp_path, f"file://{file}", "dataset_invalid", "list.parquet is not a readable Parquet file")


def test_more_rows_than_a_chunk(tmp_path: Path, data: Path) -> None:
    count = 40_000
    lines = [f"images/{number}.png,{number % 7}" for number in range(count)]
    (data / "list.csv").write_text("path,label\n" + "\n".join(lines) + "\n")
    samples, reader = open_uri(tmp_path, f"file://{data / 'list.csv'}")
    table = rows(samples)
    assert [row["path"] for row in table] == [f"images/{number}.png" for number in range(count)]
    assert [samples.classes[row["label"]] for row in table[-7:]] == [str(n % 7) for n in range(count - 7, count)]
    assert contents(samples, reader, [39_999, 2]) == {
        "images/39999.png": Unreadable("there is no such file"),
        "images/2.png": b"images/2.png",
    }
