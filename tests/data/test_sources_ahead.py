"""Reading ahead: in order, bounded, and ended when nobody reads on. And fsspec's file systems behind it."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import fsspec
import pytest

from training_core.contract.errors import Failed
from training_core.data.samples import Unreadable
from training_core.data.sources import Entry, Piece
from training_core.data.sources.ahead import GAP_BYTES, IN_FLIGHT_BYTES, REQUEST_BYTES, Request, plan, read_ahead
from training_core.data.sources.remote import RemoteSource

MIB = 2**20


def content(entry: Entry, start: int, stop: int) -> bytes:
    return (
        bytes((entry.stamp + position // 1024) % 256 for position in range(start, stop, 1024)) * 1024
        if stop - start > 4096
        else bytes((entry.stamp + position) % 256 for position in range(start, stop))
    )


def fetch(request: Request) -> bytes:
    return content(request.entry, request.start, request.stop)


def test_whole_files_are_read_in_order() -> None:
    entries = [Entry(str(number), number % 50, number) for number in range(500)]
    expected = [content(entry, 0, entry.size) for entry in entries]
    for requests, together in ((1, 1), (4, 32), (32, 1)):
        assert list(read_ahead(map(Piece, entries), fetch, requests=requests, together=together)) == expected


def test_neighbours_share_a_request_and_strangers_do_not() -> None:
    shard, other = Entry("a", 100 * MIB, 1), Entry("b", 100 * MIB, 2)
    pieces = [Piece(shard, 0, 10), Piece(shard, 20, 10), Piece(shard, 30 + GAP_BYTES, 5), Piece(shard, 5 * MIB, 10)]
    pieces += [Piece(shard, 20, 10), Piece(other, 30, 10), Piece(other)]
    spans = [(request.entry.path, request.start, request.stop, len(request.cuts)) for request in plan(pieces)]
    assert spans[:4] == [
        ("a", 0, 35 + GAP_BYTES, 3),
        ("a", 5 * MIB, 5 * MIB + 10, 1),
        ("a", 20, 30, 1),
        ("b", 30, 40, 1),
    ]
    assert next(read_ahead(pieces[:1], fetch)) == content(shard, 0, 10)


def test_ranges_of_one_request_are_cut_where_they_were_asked_for() -> None:
    shard = Entry("a", 10_000, 3)
    pieces = [Piece(shard, 0, 100), Piece(shard, 100, 50), Piece(shard, 170, 30), Piece(shard, 120, 100)]
    assert list(read_ahead(pieces, fetch)) == [content(shard, p.start, p.start + p.length) for p in pieces]


def test_a_large_piece_is_fetched_by_ranges_and_joined() -> None:
    entry = Entry("a", 2 * REQUEST_BYTES + 1024, 5)
    sizes: list[int] = []

    def counted(request: Request) -> bytes:
        sizes.append(request.stop - request.start)
        return bytes([request.start // REQUEST_BYTES]) * (request.stop - request.start)

    (found,) = read_ahead([Piece(entry)], counted)
    assert found == bytes(REQUEST_BYTES) + b"\1" * REQUEST_BYTES + b"\2" * 1024
    assert sorted(sizes) == [1024, REQUEST_BYTES, REQUEST_BYTES]


def test_what_is_under_way_or_waits_is_bounded() -> None:
    size, lock = 4 * MIB, threading.Lock()
    state = {"held": 0, "most": 0}

    def counted(request: Request) -> bytes:
        with lock:
            state["held"] += size
            state["most"] = max(state["most"], state["held"])
        return bytes(size)

    for _ in read_ahead((Piece(Entry(str(number), size, 0)) for number in range(60)), counted):
        with lock:
            state["held"] -= size
    assert size < state["most"] <= IN_FLIGHT_BYTES + size


def test_nothing_is_asked_for_when_nobody_reads_on() -> None:
    asked: list[str] = []

    def counted(request: Request) -> bytes:
        asked.append(request.entry.path)
        return b"x"

    reading = read_ahead((Piece(Entry(str(number), 1, 0)) for number in range(10_000)), counted, requests=2)
    assert next(reading) == b"x"
    reading.close()  # type: ignore[attr-defined]
    assert len(asked) <= 5
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("fetch")]


def test_an_error_of_a_request_is_raised_where_its_content_would_be() -> None:
    def failing(request: Request) -> bytes:
        if request.entry.path == "5":
            raise ConnectionError("cut")
        return b"x"

    reading = read_ahead((Piece(Entry(str(number), 1, 0)) for number in range(10)), failing)
    assert [next(reading) for _ in range(5)] == [b"x"] * 5
    with pytest.raises(ConnectionError):
        next(reading)


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    filesystem = fsspec.filesystem("memory", skip_instance_cache=True)
    for name in ("cats/1.png", "cats/deep/2.png", "dogs/1.png", "cats.txt"):
        filesystem.pipe(f"/pets/{name}", name.encode() * 10)
    yield filesystem
    filesystem.rm("/pets", recursive=True)


def test_any_file_system_of_fsspec(memory: fsspec.AbstractFileSystem) -> None:
    source = RemoteSource("memory://pets", memory, "pets")
    entries = list(source.entries())
    assert [entry.path for entry in entries] == ["cats.txt", "cats/1.png", "cats/deep/2.png", "dogs/1.png"]
    assert list(source.read(map(Piece, entries))) == [entry.path.encode() * 10 for entry in entries]
    assert list(source.read([Piece(entries[1], 10, 5)])) == [b"cats/"]
    with source.open(entries[2]) as file:
        file.seek(-15, 2)
        assert file.read() == b"cats/deep/2.png"
    memory.rm("/pets/dogs/1.png")
    memory.pipe("/pets/cats/1.png", b"longer" * 100)
    assert list(source.read(map(Piece, entries[1:]))) == [
        Unreadable("it changed since it was listed"),
        b"cats/deep/2.png" * 10,
        Unreadable("it vanished since it was listed"),
    ]


def test_files_whose_place_does_not_know_their_size(
    memory: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a DVC repository lists the files of a folder that lies in its remote alone."""
    listed = memory.ls
    monkeypatch.setattr(memory, "ls", lambda path, detail=True: [{**one, "size": None} for one in listed(path)])
    source = RemoteSource("memory://pets", memory, "pets")
    entries = list(source.entries())
    assert [entry.size for entry in entries] == [80, -1, -1, -1]
    assert list(source.read(map(Piece, entries))) == [entry.path.encode() * 10 for entry in entries]
    memory.pipe("/pets/cats/1.png", bytes(64 * 2**20 + 1))
    assert list(source.read([Piece(entries[1])])) == [Unreadable("it is larger than 64 MiB")]


def test_one_file_of_any_file_system(memory: fsspec.AbstractFileSystem) -> None:
    source = RemoteSource("memory://pets/cats.txt", memory, "/pets/cats.txt")
    assert [entry.path for entry in source.entries()] == ["cats.txt"]
    folder = source.beside()
    assert folder is not None
    assert len(list(folder.entries())) == 4


def test_a_folder_of_any_file_system_that_is_not_there(memory: fsspec.AbstractFileSystem) -> None:
    with pytest.raises(Failed) as failure:
        list(RemoteSource("memory://none", memory, "none").entries())
    assert failure.value.reason == "dataset_unreachable"
