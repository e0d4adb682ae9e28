"""Small files that unpack to far more than anybody means: refused by their headers, or by the kernel, and cheaply."""

from __future__ import annotations

import gzip
import io
import json
import multiprocessing
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.data.opening import make_run, open_uri, refused
from training_core.contract.errors import Failed
from training_core.data.bombs import HARMLESS_BYTES, being_read
from training_core.data.sources import open_source
from training_core.processes.memory_limit import limited_memory
from training_core.vision.decode import decode_file
from training_core.vision.headers import PNG_SIGNATURE, Undecodable

MUCH = HARMLESS_BYTES + 2**20
MIB = 2**20


def images(*contents: bytes) -> pa.Array:
    return pa.array([{"bytes": one, "path": None} for one in contents])


def picture(side: int = 8) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.zeros((side, side), np.uint8)).save(out, "PNG")
    return out.getvalue()


def in_every_row(text: str) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array([0] * 5000, pa.int32()), [text])


def write(folder: Path, table: pa.Table, **options: object) -> Path:
    file = folder / "train.parquet"
    pq.write_table(table, file, compression="zstd", **options)
    assert file.stat().st_size < 2 * MIB
    return file


def read_all(folder: Path, uri: str) -> list[object]:
    samples, reader = open_uri(folder, uri)
    return [content for _, content in reader.read(range(samples.table().num_rows))]


def test_one_large_image_in_every_row_of_a_parquet_file(tmp_path: Path) -> None:
    """The file that took 3.4 GB: a value that is stored once and stands in every row."""
    large = picture() + bytes(30 * MIB)
    table = pa.table({"image": images(*[large] * 6), "label": ["a", "b"] * 3})
    file = write(tmp_path, table, dictionary_pagesize_limit=1 << 30)
    with pytest.raises(Failed, match=r"row group 0 of train\.parquet unpacks to"):
        read_all(tmp_path, f"file://{file}")


def test_a_column_chunk_that_unpacks_to_too_much(tmp_path: Path) -> None:
    table = pa.table({"image": images(bytes(MUCH), b"x"), "label": ["a", "b"]})
    refused(tmp_path, f"file://{write(tmp_path, table)}", "dataset_invalid", "unpacks to", "image")


def test_a_label_as_long_as_a_book_in_every_row(tmp_path: Path) -> None:
    table = pa.table({"image": images(*[picture()] * 5000), "label": in_every_row("a" * 100_000)})
    refused(tmp_path, f"file://{write(tmp_path, table)}", "dataset_invalid", "'label'", "100,000")


def test_a_manifest_in_parquet_has_the_same_bounds(tmp_path: Path) -> None:
    table = pa.table({"image": ["a.png"] * 5000, "label": in_every_row("a" * 100_000)})
    refused(tmp_path, f"file://{write(tmp_path, table)}", "dataset_invalid", "'label'", "100,000")


def test_more_rows_than_bytes(tmp_path: Path) -> None:
    count = 3 * 10**6
    table = pa.table({"image": pa.array(["a.png"] * count).dictionary_encode(), "label": np.zeros(count, np.int8)})
    refused(tmp_path, f"file://{write(tmp_path, table)}", "dataset_invalid", "rows, more than")


def test_texts_are_as_they_were(tmp_path: Path) -> None:
    table = pa.table({"image": images(*[picture()] * 4), "label": pa.array(["b", "a", "b", "a"], pa.large_string())})
    samples, _ = open_uri(tmp_path, f"file://{write(tmp_path, table, row_group_size=2)}")
    assert (samples.classes, samples.table().column("label").to_pylist()) == (["a", "b"], [1, 0, 1, 0])


@pytest.mark.parametrize("suffix", ["gz", "bz2", "xz"])
def test_a_compressed_tar(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"data.tar.{suffix}"
    with tarfile.open(file, f"w:{suffix}") as archive:
        member = tarfile.TarInfo("a/1.png")
        member.size = MUCH
        archive.addfile(member, io.BytesIO(bytes(MUCH)))
    assert file.stat().st_size < 200_000
    with pytest.raises(Failed, match="unpacks to"):
        list(open_source_of(tmp_path, f"file://{file}"))


def open_source_of(folder: Path, uri: str) -> list[str]:
    return [entry.path for entry in open_source(make_run(folder, uri), folder / "scratch").entries()]


def test_a_table_in_a_zip(tmp_path: Path) -> None:
    file = tmp_path / "data.zip"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("labels.csv", b"image,label\n" + b"\n" * MUCH)
    refused(tmp_path, f"file://{file}", "dataset_invalid", "labels.csv", "unpacks to")


@pytest.mark.parametrize("content", ["image,label\na.png,{}\n", '{{"image": "a.png", "label": "{}"}}\n'])
def test_a_cell_that_is_no_label(tmp_path: Path, content: str) -> None:
    file = tmp_path / ("labels.csv" if content.startswith("image") else "labels.jsonl")
    file.write_text(content.format("x" * 5000))
    refused(tmp_path, f"file://{file}", "dataset_invalid", "5,000 characters in 'label'")


def test_a_list_in_json_is_no_label(tmp_path: Path) -> None:
    (tmp_path / "labels.jsonl").write_text(json.dumps({"image": "a.png", "label": [[]] * 1000}) + "\n")
    refused(tmp_path, f"file://{tmp_path}/labels.jsonl", "dataset_invalid", "no label")


@pytest.mark.parametrize("which", ["images", "labels"])
def test_idx_that_says_it_unpacks_to_gigabytes(tmp_path: Path, which: str) -> None:
    count = 10**9 if which == "labels" else 10**6
    for name, header in (
        ("train-images-idx3-ubyte.gz", struct.pack(">4BIII", 0, 0, 8, 3, count if which == "images" else 1, 100, 100)),
        ("train-labels-idx1-ubyte.gz", struct.pack(">4BI", 0, 0, 8, 1, count)),
    ):
        (tmp_path / name).write_bytes(gzip.compress(header + bytes(10_000)))
    refused(tmp_path, f"file://{tmp_path}", "dataset_invalid", which, "unpacks to")


def test_a_label_in_a_webdataset(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "train.tar", "w") as archive:
        for name, content in (("1.png", picture()), ("1.cls", b"x" * 100_000)):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    refused(tmp_path, f"file://{tmp_path}/train.tar", "dataset_invalid", "100,000 characters")


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


@pytest.mark.parametrize("name", [b"iCCP", b"zTXt", b"iTXt"])
def test_texts_and_profiles_of_a_png_are_never_unpacked(name: bytes) -> None:
    plain, packed = picture(), zlib.compress(bytes(MUCH))
    head = {b"iCCP": b"x\0\0", b"zTXt": b"x\0\0", b"iTXt": b"x\0\1\0\0\0"}[name]
    end = len(PNG_SIGNATURE) + 25
    with_bomb = plain[:end] + chunk(name, head + packed) + plain[end:]
    assert len(with_bomb) < 200_000
    with limited_memory(32 * MIB):
        assert decode_file(with_bomb, 1).shape == (8, 8, 1)


def test_pixels_that_a_header_claims_are_never_made() -> None:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    with pytest.raises(Undecodable, match="pixels are more than"):
        decode_file(PNG_SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")), 3)


def take(how: Callable[[], object], told: multiprocessing.Queue[str]) -> None:
    with limited_memory(64 * MIB):
        try:
            with being_read("pets/train.parquet"):
                how()
        except Failed as failed:
            told.put(f"{failed.reason}: {failed.message}")
    bytearray(200 * MIB)  # and now it may again
    told.put("done")


@pytest.mark.parametrize(
    "how", [lambda: bytearray(256 * MIB), lambda: np.ones(256 * MIB, np.uint8), lambda: pa.allocate_buffer(4096 * MIB)]
)
def test_the_kernel_refuses_what_no_header_tells(how: Callable[[], object]) -> None:
    fork = multiprocessing.get_context("fork")
    told = fork.Queue()
    process = fork.Process(target=take, args=(how, told))
    process.start()
    said = [told.get(timeout=60), told.get(timeout=60)]
    process.join()
    assert said == ["out_of_memory: pets/train.parquet takes more memory than a preparation has", "done"]
    assert process.exitcode == 0
