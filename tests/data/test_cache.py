"""The disk budget: least recently used first, never one in use, and nothing half-made stays in the way."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.data.preparing import ROOT, Said, make_photos, make_run, prepared, start_preparing
from training_core.contract.errors import Failed
from training_core.contract.run_dir import RunSpec
from training_core.data import cache
from training_core.vision.pack import Pack
from training_core.vision.prepare import prepare

SMALL = 100 * 2**10


@pytest.fixture(autouse=True)
def _nothing_is_recent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "RECENT_SECONDS", 0.0)


def made(folder: Path, number: int, **changes: object) -> Said:
    """Dataset `number`, of 24 photos of 60 x 80: about 350 kB when it is packed."""
    data = folder / f"photos-{number}"
    if not data.exists():
        make_photos(data, 24)
        (data / "cats" / "00000.png").write_bytes((data / "dogs" / "00001.png").read_bytes()[:] + bytes([number]))
    return prepared(make_run(folder, data.name, **changes))


def use_at(said: Said, seconds: float) -> None:
    os.utime(cache.lock_file(said.folder.parent, said.folder.name), (seconds, seconds))


def test_the_least_recently_used_goes_first(tmp_path: Path) -> None:
    first, second = made(tmp_path, 1), made(tmp_path, 2)
    now = time.time()
    use_at(first, now - 100)
    use_at(second, now - 1000)
    size = cache.folder_bytes(first.folder)
    third = made(tmp_path, 3, cache_bytes=int(2.5 * size))
    assert first.folder.exists()
    assert third.folder.exists()
    assert not second.folder.exists()


def test_finding_it_again_counts_as_use(tmp_path: Path) -> None:
    first, second = made(tmp_path, 1), made(tmp_path, 2)
    use_at(first, time.time() - 1000)
    use_at(second, time.time() - 100)
    assert made(tmp_path, 1).ready.prepared == "found"
    made(tmp_path, 3, cache_bytes=int(2.5 * cache.folder_bytes(first.folder)))
    assert first.folder.exists()
    assert not second.folder.exists()


def test_one_that_was_used_a_moment_ago_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = made(tmp_path, 1)
    monkeypatch.setattr(cache, "RECENT_SECONDS", 300.0)
    with pytest.raises(Failed) as caught:
        made(tmp_path, 2, cache_bytes=int(1.2 * cache.folder_bytes(first.folder)))
    assert caught.value.reason == "no_space"
    assert first.folder.exists()


READ = """
import sys
from pathlib import Path
from training_core.vision.pack import Pack
pack = Pack(Path(sys.argv[1]))
print("open", flush=True)
sys.stdin.read()
print(pack.pixels(23).shape)
"""


@pytest.fixture
def other_process(tmp_path: Path) -> Iterator[tuple[Said, subprocess.Popen[str]]]:
    """A dataset, and a process that reads it."""
    first = made(tmp_path, 1)
    with subprocess.Popen(
        [sys.executable, "-c", READ, str(first.folder)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        yield first, process
        process.kill()


def test_one_in_use_by_another_process_is_never_deleted(
    tmp_path: Path, other_process: tuple[Said, subprocess.Popen[str]]
) -> None:
    first, process = other_process
    budget = int(1.2 * cache.folder_bytes(first.folder))
    with pytest.raises(Failed) as caught:
        made(tmp_path, 2, cache_bytes=budget)
    assert caught.value.reason == "no_space"
    out, _ = process.communicate("", timeout=60)
    assert out == "(60, 80, 3)\n"
    assert made(tmp_path, 2, cache_bytes=budget).folder.exists()
    assert not first.folder.exists()


def test_a_pack_of_this_process_is_in_use_until_it_is_gone(tmp_path: Path) -> None:
    first = made(tmp_path, 1)
    pack = Pack(first.folder)
    budget = int(1.2 * cache.folder_bytes(first.folder))
    with pytest.raises(Failed):
        made(tmp_path, 2, cache_bytes=budget)
    assert len(pack) == 24
    del pack
    made(tmp_path, 2, cache_bytes=budget)
    assert not first.folder.exists()


def test_an_evicted_one_is_made_again(tmp_path: Path) -> None:
    first = made(tmp_path, 1)
    budget = int(1.2 * cache.folder_bytes(first.folder))
    made(tmp_path, 2, cache_bytes=budget)
    again = made(tmp_path, 1, cache_bytes=budget)
    assert again.ready.prepared == "made"
    assert again.folder == first.folder


def test_no_space_is_said_before_anything_is_packed(tmp_path: Path) -> None:
    make_photos(tmp_path / "photos", 24)
    run = make_run(tmp_path, cache_bytes=SMALL)
    with pytest.raises(Failed, match="MiB") as caught:
        prepare(run, lambda: False, lambda report: None)
    assert caught.value.reason == "no_space"
    assert not list(tmp_path.glob("cache/.*/pixels-*"))


def test_what_killed_processes_left_goes_after_a_day(tmp_path: Path) -> None:
    make_photos(tmp_path / "photos", 60, height=12, width=12)
    run = make_run(tmp_path)
    with start_preparing(run, die_after=2) as process:
        process.wait(60)
    [half] = (tmp_path / "cache").glob(".*.tmp")
    [listing] = (tmp_path / "cache").glob(".listing-*")
    made(tmp_path, 1)
    assert half.exists()
    assert listing.exists()
    old = time.time() - cache.ABANDONED_SECONDS - 10
    os.utime(half, (old, old))
    os.utime(listing, (old, old))
    made(tmp_path, 2)
    assert not half.exists()
    assert not listing.exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 24 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)], check=False).returncode:
        pytest.skip("only root can mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_runs_full_fails_and_is_left_clean(
    tmp_path: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_photos(tmp_path / "photos", 400, "JPEG", height=180, width=180)
    run = make_run(tmp_path, cache_dir=small_disk / "cache", image_size=224, dataset={"packing": "raw"})
    monkeypatch.setattr(cache, "make_room", lambda *_, **__: None)  # another one fills the disk after the check
    failed = refused(run)
    assert failed.reason == "no_space"
    assert not list((small_disk / "cache").glob(".*.tmp"))
    assert not list((small_disk / "cache").glob("*/meta.json"))


def refused(run: RunSpec) -> Failed:
    with pytest.raises(Failed) as caught:
        prepare(run, lambda: False, lambda report: None)
    return caught.value


def test_projects_share_what_all_may_read_and_nothing_else(tmp_path: Path) -> None:
    """Two that list the same files: the listing alone is no proof that one may have what the other prepared."""
    make_photos(tmp_path / "photos")
    shared = [prepared(make_run(tmp_path, project=name)).ready for name in ("ours", "theirs")]
    assert [one.prepared for one in shared] == ["made", "found"]
    ours, theirs, again = (prepared(make_run(tmp_path, project=name, private=True)) for name in ("a", "b", "a"))
    assert [one.ready.prepared for one in (ours, theirs, again)] == ["made", "made", "found"]
    assert len({shared[0].dataset_version, ours.ready.dataset_version, theirs.ready.dataset_version}) == 3
