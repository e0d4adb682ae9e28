"""Class folders: what the folders mean, and what is told about the rest."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.data.opening import check, contents, labels, open_uri, refused, rows, splits, touch
from training_core.contract.errors import Failed
from training_core.data.samples import Unreadable


@pytest.mark.parametrize(
    "paths",
    [
        ("cat/1.png", "dog/1.JPG"),
        ("pets/cat/1.png", "pets/dog/1.png"),
        ("train/cat/1.png", "train/dog/1.png", "val/cat/2.png"),
        ("pets/train/cat/1.png", "pets/train/dog/1.png", "pets/test/dog/2.png"),
        ("cat/deep/1.png", "dog/1.png", "README.md", ".DS_Store", "__MACOSX/cat/._1.png"),
        ("cat/1.png", "dog/1.png", ".ipynb_checkpoints/1-checkpoint.png", "x/.git/y/1.png"),
    ],
)
def test_classes_are_found(tmp_path: Path, paths: tuple[str, ...]) -> None:
    samples, reader = open_uri(tmp_path, f"file://{touch(tmp_path / 'data', *paths)}")
    assert samples.classes == ["cat", "dog"]
    assert samples.format == "class-folders"
    found = contents(samples, reader)
    assert all(content == path.encode() for path, content in found.items())
    assert not [path for path in found if "/." in f"/{path}" or "README" in path]


def test_splits_and_what_is_left_out_are_told(tmp_path: Path) -> None:
    data = touch(tmp_path / "data", "train/a/1.png", "train/b/1.png", "test/a/2.png", "valid/b/3.png", "n.txt")
    samples, _ = open_uri(tmp_path, f"file://{data}")
    assert splits(samples) == {"train/a/1.png": 0, "train/b/1.png": 0, "test/a/2.png": 2, "valid/b/3.png": 1}
    assert samples.ignored == [{"path": "n.txt", "reason": "not_an_image_file"}]
    assert samples.ignored_count == 1


def test_without_split_folders_no_split_is_given(tmp_path: Path) -> None:
    samples, _ = open_uri(tmp_path, f"file://{touch(tmp_path / 'data', 'a/1.png', 'b/1.png')}")
    assert set(splits(samples).values()) == {-1}


def test_an_image_beside_the_class_folders_is_ignored_and_told(tmp_path: Path) -> None:
    data = touch(tmp_path / "data", "a/1.png", "b/1.png", "lost.png")
    samples, _ = open_uri(tmp_path, f"file://{data}")
    assert samples.ignored == [{"path": "lost.png", "reason": "in_no_class_folder"}]


@pytest.mark.parametrize(
    ("paths", "reason", "words"),
    [
        ((), "dataset_empty", "there are no images"),
        (("a/notes.txt",), "dataset_empty", "there are no images"),
        (("1.png", "2.png"), "dataset_invalid", "no class folders"),
        (("a/1.png", "a/2.png"), "dataset_invalid", "only the class 'a'"),
        (("train/a/1.png", "train/b/1.png", "test/c/1.png"), "dataset_invalid", "no training images of the class 'c'"),
    ],
)
def test_what_is_no_dataset_is_refused(tmp_path: Path, paths: tuple[str, ...], reason: str, words: str) -> None:
    (tmp_path / "data").mkdir()
    refused(tmp_path, f"file://{touch(tmp_path / 'data', *paths)}", reason, words)


def test_classes_that_are_numbers_are_sorted_as_numbers(tmp_path: Path) -> None:
    data = touch(tmp_path / "data", *(f"{number}/1.png" for number in (10, 9, 2, 0)))
    samples, _ = open_uri(tmp_path, f"file://{data}")
    assert samples.classes == ["0", "2", "9", "10"]
    assert labels(samples)["10/1.png"] == "10"


def test_the_order_is_that_of_the_bytes_of_the_paths(tmp_path: Path) -> None:
    data = touch(tmp_path / "data", "a/x.png", "a-b/x.png", "a.b/x.png", "a/x/y.png", "é/1.png", "Z/1.png")
    samples, _ = open_uri(tmp_path, f"file://{data}")
    paths = [row["path"] for row in rows(samples)]
    assert paths == sorted(paths, key=lambda path: path.encode())


def test_the_digest_depends_on_the_data_alone(tmp_path: Path) -> None:
    data = touch(tmp_path / "data", "a/1.png", "b/1.png")
    first, _ = open_uri(tmp_path, f"file://{data}")
    again, _ = open_uri(tmp_path, f"file://{data}")
    assert again.digest == first.digest
    os.utime(data / "a" / "1.png", ns=(1, 1))
    touched, _ = open_uri(tmp_path, f"file://{data}")
    assert touched.digest != first.digest
    changed = [before["path"] for before, now in zip(rows(first), rows(touched), strict=True) if before != now]
    assert changed == ["a/1.png"]


@pytest.mark.parametrize("change", ["rename", "relabel", "remove"])
def test_every_change_of_the_listing_changes_the_digest(tmp_path: Path, change: str) -> None:
    data = touch(tmp_path / "data", "a/1.png", "b/1.png", "b/2.png")
    before, _ = open_uri(tmp_path, f"file://{data}")
    match change:
        case "rename":
            (data / "b/2.png").rename(data / "b/3.png")
        case "relabel":
            (data / "b/2.png").rename(data / "a/2.png")
        case "remove":
            (data / "b/2.png").unlink()
    after, _ = open_uri(tmp_path, f"file://{data}")
    assert after.digest != before.digest


def test_a_file_that_changes_or_vanishes_after_the_listing_is_unreadable(tmp_path: Path) -> None:
    data = touch(tmp_path / "data", "a/1.png", "a/2.png", "b/1.png", "b/2.png")
    samples, reader = open_uri(tmp_path, f"file://{data}")
    (data / "a/1.png").write_bytes(b"another content")
    os.utime(data / "a/2.png", ns=(1, 1))
    (data / "b/1.png").unlink()
    found = contents(samples, reader)
    assert found["a/1.png"] == found["a/2.png"] == Unreadable("it changed since it was listed")
    assert found["b/1.png"] == Unreadable("it vanished since it was listed")
    assert found["b/2.png"] == b"b/2.png"


def test_a_file_of_more_than_64_mebibytes_is_unreadable_and_the_rest_is_read(tmp_path: Path) -> None:
    data = touch(tmp_path / "data", "a/1.png", "b/1.png")
    with (data / "a/large.png").open("wb") as file:
        file.truncate(64 * 2**20 + 1)
    found = contents(*open_uri(tmp_path, f"file://{data}"))
    assert found["a/large.png"] == Unreadable("it is larger than 64 MiB")
    assert found["b/1.png"] == b"b/1.png"


def test_rows_are_read_in_any_order_and_twice(tmp_path: Path) -> None:
    data = touch(tmp_path / "data", *(f"{label}/{number}.png" for label in "ab" for number in range(50)))
    _, reader = open_uri(tmp_path, f"file://{data}")
    order = [99, 0, 0, 50, 3, 98]
    assert [row for row, _ in reader.read(order)] == order
    assert list(reader.read([])) == []


def test_a_link_out_of_the_roots_is_refused_when_listed_and_when_it_is_swapped_in_later(tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"a/1.png")
    allowed = tmp_path / "allowed"
    data = touch(allowed / "data", "a/1.png", "b/1.png")
    opened = open_uri(tmp_path, f"file://{data}", data_roots=[allowed])
    status = (data / "a/1.png").stat()
    os.utime(secret, ns=(status.st_atime_ns, status.st_mtime_ns))
    (data / "a/1.png").unlink()
    (data / "a/1.png").symlink_to(secret)
    with pytest.raises(Failed) as failure:
        contents(*opened)
    check(failure.value, "dataset_forbidden", "a/1.png")
    refused(tmp_path, f"file://{data}", "dataset_forbidden", "a/1.png", data_roots=[allowed])


def test_a_folder_that_links_out_is_refused(tmp_path: Path) -> None:
    allowed = tmp_path / "allowed"
    data = touch(allowed / "data", "a/1.png", "b/1.png")
    (data / "c").symlink_to(touch(tmp_path / "outside", "1.png"))
    refused(tmp_path, f"file://{data}", "dataset_forbidden", "c is a link", data_roots=[allowed])


def test_links_below_the_roots_are_followed_once(tmp_path: Path) -> None:
    data = touch(tmp_path / "data", "a/1.png", "b/1.png")
    (data / "b" / "loop").symlink_to(data)
    (data / "b" / "2.png").symlink_to(data / "a" / "1.png")
    (data / "b" / "gone.png").symlink_to(data / "nowhere.png")
    samples, reader = open_uri(tmp_path, f"file://{data}")
    assert contents(samples, reader)["b/2.png"] == b"a/1.png"
    assert set(labels(samples)) == {"a/1.png", "b/1.png", "b/2.png"}


def test_pipes_are_left_out_and_do_not_hang(tmp_path: Path) -> None:
    data = touch(tmp_path / "data", "a/1.png", "b/1.png", "b/2.png")
    os.mkfifo(data / "a" / "pipe.png")
    samples, reader = open_uri(tmp_path, f"file://{data}")
    assert "a/pipe.png" not in labels(samples)
    (data / "b/2.png").unlink()
    os.mkfifo(data / "b/2.png")
    assert contents(samples, reader)["b/2.png"] == Unreadable("it vanished since it was listed")


def test_a_name_that_is_not_text_is_unreadable(tmp_path: Path) -> None:
    data = touch(tmp_path / "data", "a/1.png", "b/1.png")
    Path(os.fsdecode(os.fsencode(data) + b"/a/\xff.png")).write_bytes(b"x")
    found = contents(*open_uri(tmp_path, f"file://{data}"))
    assert found["a/\\udcff.png"] == Unreadable("it vanished since it was listed")


@pytest.mark.parametrize("name", ["a\nb", "x" * 201])
def test_a_class_of_an_unspeakable_name_is_refused(tmp_path: Path, name: str) -> None:
    data = touch(tmp_path / "data", f"{name}/1.png", "b/1.png")
    refused(tmp_path, f"file://{data}", "dataset_invalid", "short printable name")
