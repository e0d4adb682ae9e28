"""Images inside of shards: WebDataset, Parquet with image bytes, IDX."""

from __future__ import annotations

import gzip
import io
import json
import os
import struct
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.opening import contents, labels, make_run, open_run, open_uri, refused, rows, splits
from training_core.contract.errors import Failed
from training_core.data.samples import Unreadable


def write_shard(path: Path, files: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def shard_files(first: int, count: int = 20) -> dict[str, bytes]:
    files = {}
    for number in range(first, first + count):
        files[f"{number:04}.cls"] = b"%d\n" % (number % 3)
        files[f"{number:04}.jpg"] = b"image %d " % number * 50
        files[f"{number:04}.json"] = json.dumps({"patient": number // 2, "mass": 0.5}).encode()
    return files


@pytest.mark.parametrize("form", ["auto", "webdataset"])
def test_webdataset(tmp_path: Path, form: str) -> None:
    data = tmp_path / "data"
    for number, name in enumerate(("pets-train-000.tar", "pets-train-001.tar", "pets-val-000.tar")):
        write_shard(data / name, shard_files(number * 20))
    spec = {"format": form, "columns": {"weight": "mass"}, "split": {"group_by": "patient"}}
    samples, reader = open_uri(tmp_path, f"file://{data}", spec)
    assert (samples.format, samples.classes) == ("webdataset", ["0", "1", "2"])
    table = rows(samples)
    assert len(table) == 60
    first = table[0]
    assert (first["path"], first["file"]) == ("pets-train-000.tar/0000.jpg", "pets-train-000.tar")
    assert [row["split"] for row in table] == [0] * 40 + [1] * 20
    assert [row["label"] for row in table] == [number % 3 for number in range(60)]
    assert table[0]["group"] == table[1]["group"] != table[2]["group"]
    assert {row["weight"] for row in table} == {0.5}
    expected = {f"{row['path']}": b"image %d " % number * 50 for number, row in enumerate(table)}
    assert contents(samples, reader) == expected
    assert list(contents(samples, reader, [59, 0, 30]).values()) == [
        b"image %d " % number * 50 for number in (59, 0, 30)
    ]


def test_a_class_in_json_and_a_word_in_txt(tmp_path: Path) -> None:
    files = {
        "a.png": b"1",
        "a.json": b'{"label": "cat"}',
        "b.txt": b"dog",
        "b.seg.png": b"2",
        "b.png": b"3",
        "readme": b"x",
    }
    samples, reader = open_uri(tmp_path, f"file://{write_shard(tmp_path / 'x.tar', files)}")
    assert labels(samples) == {"x.tar/a.png": "cat", "x.tar/b.png": "dog"}
    assert contents(samples, reader) == {"x.tar/a.png": b"1", "x.tar/b.png": b"3"}


def test_the_index_of_a_shard_is_made_once_and_anew_when_the_shard_changes(tmp_path: Path) -> None:
    data = tmp_path / "data"
    write_shard(data / "a.tar", shard_files(0))
    write_shard(data / "b.tar", shard_files(20))
    run = make_run(tmp_path, f"file://{data}")
    first, _ = open_run(run)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache" / "listings").iterdir()}
    assert len(kept) == 2
    write_shard(data / "b.tar", shard_files(20, 21))
    second, _ = open_run(run)
    assert second.digest != first.digest
    assert len(list((tmp_path / "cache" / "listings").iterdir())) == 3
    changed = {row["file"] for row, old in zip(rows(second), rows(first), strict=False) if row != old}
    assert changed == {"b.tar"}


def test_a_sample_without_a_class_is_named(tmp_path: Path) -> None:
    files = {**shard_files(0), "9999.jpg": b"x"}
    refused(
        tmp_path, f"file://{write_shard(tmp_path / 'x.tar', files)}", "dataset_invalid", "'9999' of x.tar", "no class"
    )


@pytest.mark.parametrize("kept", [300, 5000, 20_000])
def test_a_truncated_shard_is_named(tmp_path: Path, kept: int) -> None:
    path = write_shard(tmp_path / "x.tar", shard_files(0))
    path.write_bytes(path.read_bytes()[:kept])
    refused(tmp_path, f"file://{path}", "dataset_invalid", "x.tar is not a readable tar archive: it is truncated")
    assert not list((tmp_path / "cache" / "listings").iterdir()), "nothing half-made is kept"


def test_a_name_in_a_shard_that_leads_out(tmp_path: Path) -> None:
    refused(
        tmp_path, f"file://{write_shard(tmp_path / 'x.tar', {'../a.jpg': b'x'})}", "dataset_invalid", "not a safe name"
    )


def image_table(count: int, *, struct: bool, names: list[str] | None) -> pa.Table:
    images: list[Any] = [b"image %d" % number * 30 for number in range(count)]
    if struct:
        images = [{"bytes": image, "path": None} for image in images]
    numbers = [number % 3 for number in range(count)]
    table = pa.table({"image": images, "label": numbers, "patient": [str(number) for number in numbers]})
    if names is None:
        return table
    features = {"features": {"label": {"names": names, "_type": "ClassLabel"}}}
    return table.replace_schema_metadata({"huggingface": json.dumps({"info": features})})


@pytest.mark.parametrize("form", ["auto", "parquet"])
@pytest.mark.parametrize("struct", [True, False])
def test_parquet_with_images(tmp_path: Path, struct: bool, form: str) -> None:
    data = tmp_path / "data"
    data.mkdir()
    names = ["wolf", "cat", "ape"]
    for name, count in (("train-00000-of-00002", 300), ("train-00001-of-00002", 10), ("test-00000-of-00001", 20)):
        pq.write_table(image_table(count, struct=struct, names=names), data / f"{name}.parquet", row_group_size=100)
    samples, reader = open_uri(tmp_path, f"file://{data}", {"format": form, "split": {"group_by": "patient"}})
    assert (samples.format, samples.classes) == ("parquet", ["ape", "cat", "wolf"])
    table = rows(samples)
    assert [row["split"] for row in table] == [2] * 20 + [0] * 310
    assert [samples.classes[row["label"]] for row in table[:3]] == names
    numbers = [int(row["path"].rpartition("/")[2]) for row in table]
    expected = {row["path"]: b"image %d" % number * 30 for row, number in zip(table, numbers, strict=True)}
    assert contents(samples, reader) == expected
    order = [329, 20, 21, 120, 319, 319, 0, 260]
    found = [content for _, content in reader.read(order)]
    assert found == [b"image %d" % numbers[row] * 30 for row in order]


def test_parquet_without_names_of_classes_and_with_empty_cells(tmp_path: Path) -> None:
    table = pa.table({"img": [b"a", None, b"c"], "label": ["x", "y", "x"]})
    pq.write_table(table, tmp_path / "p.parquet")
    found = contents(*open_uri(tmp_path, f"file://{tmp_path / 'p.parquet'}"))
    assert list(found.values()) == [b"a", Unreadable("its row holds no image"), b"c"]


def test_a_damaged_row_group_is_told_and_the_rest_is_read(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    table = image_table(200, struct=False, names=None)
    pq.write_table(table, path, row_group_size=100, use_dictionary=False, compression="zstd", write_page_checksum=True)
    samples, reader = open_uri(tmp_path, f"file://{path}")
    chunk = pq.ParquetFile(path).metadata.row_group(0).column(0)
    content = bytearray(path.read_bytes())
    end = chunk.data_page_offset + chunk.total_compressed_size
    content[end - 40 : end - 20] = bytes(20)
    before = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    found = list(contents(samples, reader).values())
    assert found[:100] == [Unreadable("the row group 0 of its file is damaged")] * 100
    assert found[199] == b"image 199" * 30


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"image": [1, 2], "label": ["a", "b"]}, "no column of encoded images"),
        ({"image": [b"1", b"2"], "label": [["a"], ["b"]]}, "has the type list<"),
        ({"image": [b"1", b"2"], "lable": ["a", "b"]}, "no column 'label'; the nearest is 'lable'"),
        ({"image": [b"1", b"2"], "label": ["a", None]}, "row 2 of p.parquet has no label"),
        ({"image": [b"1", b"2"], "label": [0.5, 1.5]}, "row 1 of p.parquet has no label"),
    ],
)
def test_parquet_of_wrong_types(tmp_path: Path, table: dict[str, Any], words: str) -> None:
    pq.write_table(pa.table(table), tmp_path / "p.parquet")
    refused(tmp_path, f"file://{tmp_path / 'p.parquet'}", "dataset_invalid", words, dataset={"format": "parquet"})


def test_a_label_without_a_name(tmp_path: Path) -> None:
    pq.write_table(image_table(9, struct=False, names=["a", "b"]), tmp_path / "p.parquet")
    refused(tmp_path, f"file://{tmp_path / 'p.parquet'}", "dataset_invalid", "the label 2, and there are 2 names")


def idx_bytes(array: np.ndarray[Any, Any]) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_idx(
    folder: Path, name: str, count: int, *, zipped: bool, shape: tuple[int, ...] = (6, 5)
) -> np.ndarray[Any, Any]:
    images = np.random.default_rng(len(name)).integers(0, 256, (count, *shape), np.uint8)
    numbers = (np.arange(count) % 10).astype(np.uint8)
    folder.mkdir(exist_ok=True)
    for kind, array in ((f"images-idx{images.ndim}", images), ("labels-idx1", numbers)):
        content = idx_bytes(array)
        path = folder / f"{name}-{kind}-ubyte{'.gz' if zipped else ''}"
        path.write_bytes(gzip.compress(content) if zipped else content)
    return images


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 3)])
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("form", ["auto", "idx"])
def test_idx(tmp_path: Path, form: str, zipped: bool, shape: tuple[int, ...]) -> None:
    test = write_idx(tmp_path / "data", "t10k", 30, zipped=zipped, shape=shape)
    train = write_idx(tmp_path / "data", "train", 100, zipped=zipped, shape=shape)
    samples, reader = open_uri(tmp_path, f"file://{tmp_path / 'data'}", {"format": form})
    assert (samples.format, samples.classes) == ("idx", [str(number) for number in range(10)])
    assert list(splits(samples).values()) == [2] * 30 + [0] * 100
    order = [129, 3, 4, 5, 30]
    everything = np.concatenate([test, train]).reshape(130, 6, 5, -1)
    for row, content in reader.read(order):
        assert isinstance(content, np.ndarray)
        assert content.dtype == np.uint8
        np.testing.assert_array_equal(content, everything[row])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda content: b"\0\0\x0d\x03" + content[4:], "begins with 00000d03, which is not IDX of unsigned bytes"),
        (lambda content: content[:10], "is truncated"),
        (lambda content: content[:-1], "its header says"),
        (lambda content: content + b"x", "its header says"),
        (lambda content: content[:4] + struct.pack(">III", 100, 2**16, 2**16), "65536 x 65536 x 1"),
        (lambda content: content[:4] + struct.pack(">III", 99, 6, 5) + content[16:-30], "99 images"),
    ],
)
def test_idx_that_lies(tmp_path: Path, change: Any, words: str) -> None:
    write_idx(tmp_path / "data", "train", 100, zipped=False)
    path = tmp_path / "data" / "train-images-idx3-ubyte"
    path.write_bytes(change(path.read_bytes()))
    refused(tmp_path, f"file://{tmp_path / 'data'}", "dataset_invalid", "train-images-idx3-ubyte", words)


def test_idx_labels_that_lie_and_that_are_missing(tmp_path: Path) -> None:
    write_idx(tmp_path / "data", "train", 100, zipped=False)
    path = tmp_path / "data" / "train-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    refused(tmp_path, f"file://{tmp_path / 'data'}", "dataset_invalid", "holds 99 labels")
    path.unlink()
    refused(tmp_path, f"file://{tmp_path / 'data'}", "dataset_invalid", "no file of labels beside it")


def test_zipped_idx_that_is_longer_than_its_header_says(tmp_path: Path) -> None:
    write_idx(tmp_path / "data", "train", 100, zipped=True)
    path = tmp_path / "data" / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + bytes(10**7)))
    _, reader = open_uri(tmp_path, f"file://{tmp_path / 'data'}")
    with pytest.raises(Failed, match="its header says"):
        list(reader.read([0]))
    path.write_bytes(path.read_bytes()[:50])
    refused(tmp_path, f"file://{tmp_path / 'data'}", "dataset_invalid", "train-images-idx3-ubyte.gz")
