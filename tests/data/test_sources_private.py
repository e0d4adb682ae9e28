"""The service's own folders are no data, wherever they lie and by whichever way they are reached."""

from __future__ import annotations

import ctypes
import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.data.opening import labels, make_run, open_run, open_uri, refused, touch
from training_core.contract.errors import Failed
from training_core.contract.run_dir import RunSpec
from training_core.data.sources import open_source
from training_core.data.sources.private import PrivatePlaces

OURS = ("store", "cache", "work", ".trainyard")
WORDS = ("dataset_forbidden", "own files")
MS_BIND, MNT_DETACH = 4096, 2


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data root in which everything of ours lies as well."""
    for folder in (*(f"{name}/jobs" for name in OURS), "pets"):
        touch(tmp_path / folder, "a/1.png", "b/1.png")
    return tmp_path


def run_of(root: Path, uri: str) -> RunSpec:
    return make_run(root, uri, private_dirs=[root / "work", root / ".trainyard", root / "not-there"])


def refuse(root: Path, uri: str) -> None:
    refused(root, uri, *WORDS, private_dirs=[root / "work", root / ".trainyard"])


def test_the_root_itself_is_read_without_them(root: Path) -> None:
    found = [entry.path for entry in open_source(run_of(root, f"file://{root}"), root / "scratch").entries()]
    assert found == ["pets/a/1.png", "pets/b/1.png"]


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("below", ["", "/jobs", "/jobs/a/1.png"])
def test_none_of_them_is_a_dataset(root: Path, name: str, below: str) -> None:
    refuse(root, f"file://{root}/{name}{below}")


def test_a_link_to_one_is_one(root: Path) -> None:
    (root / "link").symlink_to(root / "store")
    refuse(root, f"file://{root}/link/jobs")
    (root / "pets" / "c").symlink_to(root / "store" / "jobs" / "a")
    refuse(root, f"file://{root}/pets")


def test_a_link_to_a_file_in_one_is_refused(root: Path) -> None:
    (root / "pets" / "a" / "2.png").symlink_to(root / "store" / "jobs" / "a" / "1.png")
    samples, reader = open_run(run_of(root, f"file://{root}/pets"))
    with pytest.raises(Failed, match="own files"):
        list(reader.read(range(samples.table().num_rows)))


def test_a_hard_link_to_a_file_in_one_is_refused_and_other_hard_links_are_not(root: Path) -> None:
    os.link(root / "pets" / "a" / "1.png", root / "pets" / "a" / "2.png")
    samples, reader = open_run(run_of(root, f"file://{root}/pets"))
    assert all(isinstance(content, bytes) for _, content in reader.read(range(samples.table().num_rows)))
    os.link(root / "store" / "jobs" / "a" / "1.png", root / "pets" / "b" / "2.png")
    samples, reader = open_run(run_of(root, f"file://{root}/pets"))
    with pytest.raises(Failed, match="own files"):
        list(reader.read(range(samples.table().num_rows)))


def test_a_manifest_that_names_a_file_in_one_is_refused(root: Path) -> None:
    lines = [{"image": "pets/a/1.png", "label": "a"}, {"image": "store/jobs/a/1.png", "label": "b"}]
    (root / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    refuse(root, f"file://{root}/manifest.jsonl")


def test_an_archive_in_one_is_refused_and_one_beside_it_is_not(root: Path) -> None:
    for place in (root / "store" / "x.zip", root / "x.zip"):
        with zipfile.ZipFile(place, "w") as archive:
            for label in "ab":
                archive.writestr(f"{label}/1.png", b"picture")
    refuse(root, f"zip://::file://{root}/store/x.zip")
    samples, _ = open_uri(root, f"zip://::file://{root}/x.zip")
    assert set(labels(samples).values()) == {"a", "b"}


@pytest.fixture
def mounted(root: Path) -> Iterator[Path]:
    """A part of the store, seen a second time in the data."""
    target = root / "pets" / "mounted"
    target.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(str(root / "store" / "jobs").encode(), str(target).encode(), None, MS_BIND, None) != 0:
        pytest.skip("bind mounts take rights that this process has not")
    yield target
    libc.umount2(str(target).encode(), MNT_DETACH)


def test_a_bind_mount_of_a_part_of_one_is_one(root: Path, mounted: Path) -> None:
    refuse(root, f"file://{mounted}")
    found = [entry.path for entry in open_source(run_of(root, f"file://{root}/pets"), root / "scratch").entries()]
    assert found == ["a/1.png", "b/1.png"]


def test_without_places_nothing_is_looked_at(root: Path) -> None:
    PrivatePlaces().check_folder("/nowhere", "x")
