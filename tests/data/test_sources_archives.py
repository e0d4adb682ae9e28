"""Zip and tar archives, and what hostile ones try."""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.data.opening import contents, make_run, open_run, open_uri, refused, rows
from training_core.data.formats.context import Opened
from training_core.data.samples import Unreadable
from training_core.data.sources.tar_members import BadTar, tar_members

PATHS = ("cats/1.png", "cats/2.png", "dogs/1.png")
DAMAGED = Unreadable("its stored content is damaged")


def make_zip(path: Path, names: tuple[str, ...] = PATHS, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name in names:
            archive.writestr(name, name.encode() * 100)
    return path


def make_tar(path: Path, names: tuple[str, ...] = PATHS, mode: str = "w", form: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, mode, format=form) as archive:
        for name in names:
            add(archive, name, name.encode() * 100)
    return path


def add(
    archive: tarfile.TarFile, name: str, content: bytes = b"x", kind: bytes = tarfile.REGTYPE, link: str = ""
) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.type, member.linkname = len(content) if kind == tarfile.REGTYPE else 0, kind, link
    archive.addfile(member, io.BytesIO(content))


def all_there(opened: Opened, names: tuple[str, ...] = PATHS) -> None:
    assert contents(*opened) == {name: name.encode() * 100 for name in names}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
@pytest.mark.parametrize("uri", ["zip://::file://{}", "zip://*::file://{}", "file://{}"])
def test_a_zip(tmp_path: Path, method: int, uri: str) -> None:
    all_there(open_uri(tmp_path, uri.format(make_zip(tmp_path / "pets.zip", method=method))))


@pytest.mark.parametrize(
    ("name", "mode"), [("p.tar.gz", "w:gz"), ("p.tgz", "w:gz"), ("p.tar.xz", "w:xz"), ("p.tar.bz2", "w:bz2")]
)
def test_a_compressed_tar(tmp_path: Path, name: str, mode: str) -> None:
    all_there(open_uri(tmp_path, f"file://{make_tar(tmp_path / name, mode=mode)}"))
    all_there(open_uri(tmp_path, f"tar://::file://{tmp_path / name}"))


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_a_tar_with_long_and_foreign_names(tmp_path: Path, form: int) -> None:
    deep = "/".join(["folder" * 5] * (7 if form != tarfile.USTAR_FORMAT else 4))
    names = (
        (f"cats/{deep}/1.png", "dogs/é.png") if form != tarfile.USTAR_FORMAT else (f"cats/{deep}/1.png", "dogs/1.png")
    )
    all_there(open_uri(tmp_path, f"tar://::file://{make_tar(tmp_path / 'p.tar', names, form=form)}"), names)


def test_an_inner_folder_is_the_dataset(tmp_path: Path) -> None:
    names = tuple(f"deep/{name}" for name in PATHS)
    make_zip(tmp_path / "p.zip", (*names, "other/birds/1.png"))
    make_tar(tmp_path / "p.tar", (*names, "other/birds/1.png"))
    for uri in ("zip://deep::file://p.zip", "tar://deep/::file://p.tar"):
        samples, reader = open_uri(tmp_path, uri)
        assert contents(samples, reader) == {name: f"deep/{name}".encode() * 100 for name in PATHS}


def test_a_tar_in_a_zip(tmp_path: Path) -> None:
    make_tar(tmp_path / "p.tar")
    with zipfile.ZipFile(tmp_path / "p.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(tmp_path / "p.tar", "p.tar")
    all_there(open_uri(tmp_path, "tar://::zip://::file://p.zip"))
    with pytest.raises(ValueError, match="two archives"):
        make_run(tmp_path, "zip://::tar://::zip://::file://p.zip")


def test_a_tar_is_walked_through_once(tmp_path: Path) -> None:
    run = make_run(tmp_path, f"tar://::file://{make_tar(tmp_path / 'p.tar.gz', mode='w:gz')}")
    first, _ = open_run(run)
    again, reader = open_run(run)
    assert again.digest == first.digest
    assert not list(again.file.parent.glob("spool-*")), "nothing is unpacked before it is read"
    all_there((again, reader))
    assert len(list(again.file.parent.glob("spool-*"))) == 1


def test_another_archive_of_the_same_name_is_another_dataset(tmp_path: Path) -> None:
    uri = f"tar://::file://{make_tar(tmp_path / 'p.tar')}"
    first, reader = open_uri(tmp_path, uri)
    make_tar(tmp_path / "p.tar", (*PATHS, "dogs/2.png"))
    again, _ = open_uri(tmp_path, uri)
    assert again.digest != first.digest
    assert set(contents(first, reader).values()) == {Unreadable("it changed since it was listed")}


@pytest.mark.parametrize("name", ["../a/1.png", "/a/1.png", "a/../../1.png", "C:/a/1.png", "a\\1.png", ".."])
def test_names_that_leave_the_archive(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        archive.writestr(name, b"x")
    with tarfile.open(tmp_path / "p.tar", "w") as archive2:
        add(archive2, name)
    for uri in ("zip://::file://p.zip", "tar://::file://p.tar"):
        refused(tmp_path, uri, "dataset_invalid", "is not a safe name")


def test_links_and_devices_are_left_out(tmp_path: Path) -> None:
    make_tar(tmp_path / "p.tar")
    with tarfile.open(tmp_path / "p.tar", "a") as archive:
        add(archive, "cats/link.png", kind=tarfile.SYMTYPE, link="/etc/passwd")
        add(archive, "cats/hard.png", kind=tarfile.LNKTYPE, link="cats/1.png")
        add(archive, "cats/null.png", kind=tarfile.CHRTYPE)
    with zipfile.ZipFile(make_zip(tmp_path / "p.zip"), "a") as zipped:
        link = zipfile.ZipInfo("cats/link.png")
        link.external_attr = 0o120777 << 16
        zipped.writestr(link, "/etc/passwd")
    for uri in ("tar://::file://p.tar", "zip://::file://p.zip"):
        all_there(open_uri(tmp_path, uri))


def test_a_member_that_is_there_twice(tmp_path: Path) -> None:
    make_tar(tmp_path / "p.tar", (*PATHS, PATHS[0]))
    refused(tmp_path, "tar://::file://p.tar", "dataset_invalid", "cats/1.png", "twice")


def test_an_encrypted_member(tmp_path: Path) -> None:
    content = bytearray(make_zip(tmp_path / "p.zip").read_bytes())
    content[content.index(b"PK\1\2") + 8] |= 1
    (tmp_path / "p.zip").write_bytes(content)
    refused(tmp_path, "zip://::file://p.zip", "dataset_invalid", "cats/1.png", "encrypted")


@pytest.mark.parametrize("name", ["pets.zip", "pets.tar", "pets.tar.gz"])
@pytest.mark.parametrize("content", [b"", b"PK but no more", b"\x1f\x8bno gzip", b"x" * 4096])
def test_an_archive_that_is_none(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    kind = "zip" if name.endswith("zip") else "tar"
    reason = "dataset_empty" if name != "pets.zip" and not content else "dataset_invalid"
    refused(tmp_path, f"{kind}://::file://{name}", reason, name)


@pytest.mark.parametrize("kept", [0.3, 0.9, 0.99])
def test_a_truncated_archive(tmp_path: Path, kept: float) -> None:
    names = tuple(f"cats/{number}.png" for number in range(40))
    for path in (
        make_zip(tmp_path / "p.zip", names),
        make_tar(tmp_path / "p.tar", names),
        make_tar(tmp_path / "p.tgz", names, "w:gz"),
    ):
        content = path.read_bytes().rstrip(b"\0") if path.suffix == ".tar" else path.read_bytes()
        path.write_bytes(content[: int(len(content) * kept)])
        kind = "zip" if path.suffix == ".zip" else "tar"
        refused(
            tmp_path,
            f"{kind}://::file://{path.name}",
            "dataset_invalid",
            path.name,
            "check that the upload is complete",
        )


def test_a_damaged_member_alone_is_unreadable(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "p.zip", method=zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    content[content.index(b"cats/2.png" * 2) + 50] ^= 255
    path.write_bytes(content)
    found = contents(*open_uri(tmp_path, "zip://::file://p.zip"))
    assert found == {"cats/1.png": b"cats/1.png" * 100, "cats/2.png": DAMAGED, "dogs/1.png": b"dogs/1.png" * 100}


def declare(path: Path, field: int, value: int) -> None:
    """Set a 4-byte field of the first entry in the directory: 20 is the stored size, 24 the size, 42 the offset."""
    content = bytearray(path.read_bytes())
    at = content.index(b"PK\1\2")
    content[at + field : at + field + 4] = struct.pack("<I", value)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("declared", "expected"), [(10, DAMAGED), (2000, DAMAGED), (65 * 2**20, Unreadable("it is larger than 64 MiB"))]
)
def test_a_member_that_lies_about_its_size(tmp_path: Path, declared: int, expected: Unreadable) -> None:
    declare(make_zip(tmp_path / "p.zip"), 24, declared)
    found = contents(*open_uri(tmp_path, "zip://::file://p.zip"))
    assert found["cats/1.png"] == expected
    assert found["dogs/1.png"] == b"dogs/1.png" * 100


def test_a_bomb_of_a_gibibyte_is_stopped_at_the_size_it_declares(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "p.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("cats/1.png", "w") as bomb:
            for _ in range(256):
                bomb.write(bytes(2**20))
        archive.writestr("dogs/1.png", b"x")
    declare(tmp_path / "p.zip", 24, 2**20)
    assert contents(*open_uri(tmp_path, "zip://::file://p.zip"))["cats/1.png"] == DAMAGED


def test_members_that_overlap(tmp_path: Path) -> None:
    """Fifield's bomb (2019): many names for the same stored bytes."""
    path = tmp_path / "p.zip"
    make_zip(path, tuple(f"cats/{number}.png" for number in range(50)), zipfile.ZIP_STORED)
    content = path.read_bytes()
    directory = content.index(b"PK\1\2")
    first = content[: content.index(b"PK\3\4", 4)]
    one, count = content[directory : content.index(b"PK\1\2", directory + 4)], 50
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, len(one) * count, len(first), 0)
    path.write_bytes(first + one * count + end)
    refused(tmp_path, "zip://::file://p.zip", "dataset_invalid", "overlap")


@pytest.mark.parametrize(("field", "value"), [(20, 2**31), (42, 2**31)])
def test_a_member_outside_the_archive(tmp_path: Path, field: int, value: int) -> None:
    declare(make_zip(tmp_path / "p.zip"), field, value)
    refused(tmp_path, "zip://::file://p.zip", "dataset_invalid", "overlap")


def test_a_zip_with_something_before_it_and_data_behind_its_members(tmp_path: Path) -> None:
    """Self-extracting archives, and those that were written as a stream (sizes follow the content)."""

    class Stream(io.RawIOBase):
        def __init__(self) -> None:
            self.content = bytearray()

        def writable(self) -> bool:
            return True

        def write(self, part: object) -> int:
            self.content += bytes(part)  # type: ignore[call-overload]
            return len(bytes(part))  # type: ignore[call-overload]

    stream = Stream()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in PATHS:
            archive.writestr(name, name.encode() * 100)
    (tmp_path / "p.zip").write_bytes(b"#!/bin/sh\nexit\n" + stream.content)
    all_there(open_uri(tmp_path, "zip://::file://p.zip"))


def test_zip64(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "p.zip", "w", zipfile.ZIP_STORED) as archive:
        for number in range(65_540):
            archive.writestr(f"{('cats', 'dogs')[number % 2]}/{number}.png", b"%d" % number)
    samples, reader = open_uri(tmp_path, "zip://::file://p.zip")
    assert len(rows(samples)) == 65_540
    assert contents(samples, reader, [65_539, 7]) == {"dogs/65539.png": b"65539", "dogs/7.png": b"7"}


def test_a_method_that_is_not_known_is_named(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "p.zip", method=zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    content[8:10] = struct.pack("<H", 93)
    path.write_bytes(content)
    found = contents(*open_uri(tmp_path, "zip://::file://p.zip"))["cats/1.png"]
    assert isinstance(found, Unreadable)
    assert "method 93" in found.problem


def test_a_compressed_tar_that_would_fill_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_tar(tmp_path / "p.tgz", mode="w:gz")
    monkeypatch.setattr("training_core.data.sources.spool.RESERVED_PART", 1)
    monkeypatch.setattr("training_core.data.sources.spool.RESERVE_BYTES", 2**62)
    refused(tmp_path, "tar://::file://p.tgz", "no_space", "does not fit")
    assert not list((tmp_path / "cache").rglob("spool-*"))


def pax_bomb(content: bytearray) -> None:
    content[124:136] = b"77777777777\0"


def no_checksum(content: bytearray) -> None:
    content[148:156] = b"0000000\0"


def no_number(content: bytearray) -> None:
    content[124:136] = b"elephants!!\0"


@pytest.mark.parametrize("spoil", [pax_bomb, no_checksum, no_number])
def test_broken_headers_of_a_tar(tmp_path: Path, spoil: Callable[[bytearray], None]) -> None:
    with tarfile.open(tmp_path / "p.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        add(archive, "é" * 200)
    content = bytearray((tmp_path / "p.tar").read_bytes())
    spoil(content)
    if spoil is not no_checksum:
        content[148:156] = b" " * 8
        content[148:156] = b"%06o\0 " % sum(content[:512])
    with pytest.raises(BadTar):
        list(tar_members(io.BytesIO(content), len(content)))
