"""The listing on disk, and finding its rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from training_core.data.archive_index import kept
from training_core.data.formats.paths_index import PathsIndex
from training_core.data.formats.splits import split_in
from training_core.data.formats.writer import sort_classes
from training_core.data.listing import CHUNK_ROWS, Listing, fingerprints, write_listing
from training_core.data.sources import Entry


def entries(count: int) -> Iterator[Entry]:
    return (
        Entry(f"class-{number % 5}/{number:07}.png", number, 2**64 - 1 - number, number * 10, 7)
        for number in range(count)
    )


def test_entries_come_back_in_their_order_and_from_several_files(tmp_path: Path) -> None:
    everything = list(entries(CHUNK_ROWS * 2 + 100))
    write_listing(everything[:1000], tmp_path / "a")
    write_listing(everything[1000:], tmp_path / "b")
    listing = Listing(tmp_path / "a", tmp_path / "b")
    assert len(listing) == len(everything)
    assert list(listing.paths()) == [entry.path for entry in everything]
    rows = np.array([CHUNK_ROWS * 2 + 99, 0, 999, 1000, CHUNK_ROWS, 0])
    assert listing.entries(rows) == [everything[row] for row in rows]
    assert listing.entry(1234) == everything[1234]


def test_entries_are_written_while_they_come(tmp_path: Path) -> None:
    """The stream is never held as a whole: it can see its first chunk on disk before it ends."""
    sizes = []

    def watched() -> Iterator[Entry]:
        for number, entry in enumerate(entries(CHUNK_ROWS * 3)):
            if number % CHUNK_ROWS == 0:
                sizes.append((tmp_path / "a").stat().st_size)
            yield entry

    write_listing(watched(), tmp_path / "a")
    assert sizes[0] < sizes[1] < sizes[2]


def test_an_empty_listing(tmp_path: Path) -> None:
    listing = write_listing([], tmp_path / "a")
    assert (len(listing), list(listing.paths()), len(Listing())) == (0, [], 0)
    assert PathsIndex(listing).rows(["x"]).tolist() == [-1]


def test_fingerprints_tell_size_and_stamp_apart() -> None:
    sizes = np.repeat(np.arange(300, dtype=np.int64), 300)
    stamps = np.tile(np.arange(300, dtype=np.uint64), 300)
    found = fingerprints(sizes, stamps)
    assert len(np.unique(found)) == 90_000
    np.testing.assert_array_equal(found, fingerprints(sizes, stamps))
    assert fingerprints(np.array([10]), np.array([7], np.uint64)).tolist() == [16390474474253937522]


def test_rows_are_found_by_path(tmp_path: Path) -> None:
    everything = list(entries(1000))
    index = PathsIndex(write_listing(everything, tmp_path / "a"))
    wanted = [everything[999].path, "none", everything[0].path, everything[0].path, ""]
    assert index.rows(wanted).tolist() == [999, -1, 0, 0, -1]


def test_what_is_kept_is_made_once_and_never_half(tmp_path: Path) -> None:
    made: list[str] = []

    def make(path: Path) -> None:
        made.append(path.name)
        path.write_text("x")

    def fail(path: Path) -> None:
        path.write_text("half")
        raise RuntimeError

    first = kept(tmp_path, "a", make)
    assert kept(tmp_path, "a", make) == first
    assert len(made) == 1
    with pytest.raises(RuntimeError):
        kept(tmp_path, "b", fail)
    assert list(first.parent.iterdir()) == [first]


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("train-00000-of-00001.parquet", 0),
        ("data/pets-VAL-000.tar", 1),
        ("pets/test/000.tar", 2),
        ("validation.csv", 1),
        ("trainable-parts.tar", -1),
        ("train-test.tar", -1),
        ("x/dev-1.tar", 1),
        ("latest/contest.tar", -1),
    ],
)
def test_splits_in_names_of_shards(path: str, split: int) -> None:
    assert split_in(path) == split


def test_classes_are_sorted() -> None:
    assert sort_classes(["10", "9", "1"]) == ["1", "9", "10"]
    assert sort_classes(["10", "9", "a"]) == ["10", "9", "a"]
    assert sort_classes(["b", "a", "Z"]) == ["Z", "a", "b"]
    assert sort_classes(["²", "1"]) == ["1", "²"]
