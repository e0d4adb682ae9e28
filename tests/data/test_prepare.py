"""A dataset is prepared once, completely and always alike, and what cannot be used is said."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.pictures import hollow_png, image_file, photo
from tests.data.preparing import ROOT, Said, digest, make_photos, make_run, prepared, start_preparing
from training_core.contract.errors import Failed, StopRequested
from training_core.contract.reports import AnyReport
from training_core.contract.run_dir import RunSpec
from training_core.data import cache, formats
from training_core.data.items import Items
from training_core.data.samples import Content, Reader
from training_core.vision import build, convert, prepare, selection, shards
from training_core.vision.pack import Pack


class CountingReader:
    """Notes which samples are asked for."""

    def __init__(self, reader: Reader, asked: list[int]) -> None:
        self._reader, self._asked = reader, asked

    def read(self, rows: Sequence[int]) -> Iterator[tuple[int, Content]]:
        for row, content in self._reader.read(rows):
            self._asked.append(row)
            yield row, content


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows whose content was read, in order."""
    rows: list[int] = []
    open_dataset = formats.open_dataset

    def counting(run: RunSpec, folder: Path) -> object:
        samples, reader = open_dataset(run, folder)
        return samples, CountingReader(reader, rows)

    monkeypatch.setattr(prepare, "open_dataset", counting)
    return rows


def failure(run: RunSpec) -> tuple[Failed, list[AnyReport]]:
    said: list[AnyReport] = []
    with pytest.raises(Failed) as caught:
        prepare.prepare(run, lambda: False, said.append)
    return caught.value, said


def kinds(said: Said) -> list[str]:
    return [report.kind for report in said.reports]


def test_reports_and_files(tmp_path: Path) -> None:
    make_photos(tmp_path / "photos")
    said = prepared(make_run(tmp_path, job_id="j1"))
    assert kinds(said) == ["data_reported", "data_ready"]
    assert said.ready.prepared == "made"
    assert said.ready.classes == ["cats", "dogs"]
    assert sum(said.ready.images.values()) == 24
    assert said.reported.path == "jobs/j1/data_report"
    report = json.loads((tmp_path / "store" / said.reported.path / "data_report.json").read_text())
    assert report["dataset_version"] == said.ready.dataset_version
    assert (tmp_path / "store" / said.reported.path / "removed.jsonl").read_bytes() == b""
    assert said.prepared is not None
    with np.load(said.prepared.selection) as rows:
        assert {name: len(rows[name]) for name in rows} == said.ready.images
        assert sorted(np.concatenate([rows[name] for name in rows])) == list(range(24))
    assert set(digest(said.folder)) == {"items.arrow", "meta.json", "pixels-00000.bin", "quarantine.jsonl"}
    leftovers = {path.name for path in (tmp_path / "cache").iterdir() if path.name.startswith(".")}
    assert not leftovers


def test_found_again_without_reading_or_inspecting_an_image(
    tmp_path: Path, asked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_photos(tmp_path / "photos")
    first = prepared(make_run(tmp_path))
    asked.clear()
    monkeypatch.delattr(selection, "make_report")
    monkeypatch.delattr(selection, "inspect")
    second = prepared(make_run(tmp_path, job_id="other"))
    assert second.ready.prepared == "found"
    assert not asked
    assert second.folder == first.folder
    assert (tmp_path / "store/jobs/other/data_report/data_report.json").exists()


def test_another_policy_needs_no_second_pass(tmp_path: Path, asked: list[int]) -> None:
    data = make_photos(tmp_path / "photos")
    (data / "cats" / "copy.png").write_bytes((data / "cats" / "00000.png").read_bytes())
    first = prepared(make_run(tmp_path))
    asked.clear()
    second = prepared(make_run(tmp_path, dataset={"cleaning": {"exact_duplicates": "flag"}}))
    assert not asked
    assert (first.reported.removed, second.reported.removed) == ({"exact_duplicates": 1}, {})
    assert sum(first.ready.images.values()) + 1 == sum(second.ready.images.values()) == 25


def test_only_what_changed_is_read_again(tmp_path: Path, asked: list[int]) -> None:
    data = make_photos(tmp_path / "photos", 60)
    first = prepared(make_run(tmp_path))
    (data / "cats" / "00010.png").write_bytes(image_file(photo(seed=1010)))
    (data / "dogs" / "99999.png").write_bytes(image_file(photo(seed=1011)))
    (data / "dogs" / "00003.png").unlink()
    asked.clear()
    second = prepared(make_run(tmp_path))
    assert second.ready.prepared == "updated"
    assert second.ready.dataset_version != first.ready.dataset_version
    items = Items(second.folder)
    paths = items.paths(range(len(items)))
    assert {paths[row] for row in asked} == {"cats/00010.png", "dogs/99999.png"}
    anew = prepared(make_run(tmp_path, cache_dir=tmp_path / "other-cache"))
    assert digest(anew.folder) == digest(second.folder)


def test_a_changed_label_is_not_taken_from_the_earlier_version(tmp_path: Path) -> None:
    data = make_photos(tmp_path / "photos")
    prepared(make_run(tmp_path))
    (data / "birds").mkdir()
    (data / "cats" / "00000.png").rename(data / "birds" / "00000.png")
    (data / "cats" / "00002.png").rename(data / "birds" / "00002.png")
    again = prepared(make_run(tmp_path))
    assert again.ready.classes == ["birds", "cats", "dogs"]
    items = Items(again.folder)
    assert items.column("label").tolist().count(0) == 2
    assert items.paths(np.flatnonzero(items.column("label") == 0)) == ["birds/00000.png", "birds/00002.png"]


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_the_number_of_threads_changes_no_byte(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convert, "TOGETHER", 4)
    data = make_photos(tmp_path / "photos", 40, kind, height=150, width=200)
    (data / "cats" / "bad.png").write_bytes(b"<html>")
    dataset = {"packing": "jpeg", "cleaning": {"max_bad_fraction": 0.5}}
    made = []
    for threads in (1, 2, 8):
        run = make_run(tmp_path, cache_dir=tmp_path / f"cache-{threads}", threads=threads, dataset=dataset)
        made.append(digest(prepared(run).folder))
    assert made[0] == made[1] == made[2]


def hostile_files() -> dict[str, tuple[bytes, str]]:
    plain = image_file(photo(seed=77))
    return {
        "empty.png": (b"", "empty"),
        "html.png": (b"<!DOCTYPE html>", "wrong_type"),
        "truncated.jpg": (image_file(photo(seed=78), "JPEG")[:-300], "truncated"),
        "truncated.png": (plain[:-40], "truncated"),
        "flipped.png": (plain[:90] + bytes([plain[90] ^ 1]) + plain[91:], "corrupt"),
        "bomb.png": (hollow_png(65_000, 65_000), "bomb"),
    }


def test_bad_images_are_quarantined_with_their_reason(tmp_path: Path) -> None:
    data = make_photos(tmp_path / "photos")
    for name, (content, _) in hostile_files().items():
        (data / "cats" / name).write_bytes(content)
    said = prepared(make_run(tmp_path, dataset={"cleaning": {"max_bad_fraction": 0.5}}))
    bad = {one.path: one.finding for one in Items(said.folder).quarantined()}
    assert bad == {f"cats/{name}": finding for name, (_, finding) in hostile_files().items()}
    assert sum(said.ready.images.values()) == 24
    assert said.reported.images == 30
    removed = (tmp_path / "store/jobs/local/data_report/removed.jsonl").read_text().splitlines()
    assert {json.loads(line)["path"] for line in removed} == set(bad)


def test_too_many_bad_images_fail_with_the_report(tmp_path: Path) -> None:
    data = make_photos(tmp_path / "photos")
    (data / "cats" / "00004.png").write_bytes(b"<html>")
    failed, said = failure(make_run(tmp_path))
    assert failed.reason == "image_corrupt"
    assert "cats/00004.png" in failed.message
    assert [report.kind for report in said] == ["data_reported"]
    report = json.loads((tmp_path / "store/jobs/local/data_report/data_report.json").read_text())
    assert report["undecodable"] == 1


@pytest.mark.parametrize(("change", "word"), [("write", "changed"), ("delete", "vanished")])
def test_a_file_that_changes_after_it_was_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, word: str
) -> None:
    victim = make_photos(tmp_path / "photos") / "dogs" / "00023.png"
    open_dataset = formats.open_dataset

    def listed_then_changed(run: RunSpec, folder: Path) -> object:
        opened = open_dataset(run, folder)
        victim.write_bytes(image_file(photo(seed=4000))) if change == "write" else victim.unlink()
        return opened

    monkeypatch.setattr(prepare, "open_dataset", listed_then_changed)
    failed, _ = failure(make_run(tmp_path))
    assert failed.reason == "dataset_changed"
    assert "dogs/00023.png" in failed.message
    assert word in failed.message


def test_a_dataset_of_nothing_but_bad_images(tmp_path: Path) -> None:
    data = make_photos(tmp_path / "photos", 4)
    for path in data.rglob("*.png"):
        path.write_bytes(b"nothing")
    assert failure(make_run(tmp_path))[0].reason == "image_corrupt"
    failed, _ = failure(make_run(tmp_path, dataset={"cleaning": {"max_bad_fraction": 1.0}}))
    assert failed.reason == "dataset_invalid"


def test_a_colour_image_among_grey_ones_is_not_made_grey(tmp_path: Path) -> None:
    data = make_photos(tmp_path / "photos", 200, height=8, width=8, channels=1)
    (data / "cats" / "00001-colour.png").write_bytes(image_file(photo(8, 8, seed=500)))
    pack = Pack(prepared(make_run(tmp_path)).folder)
    assert pack.channels == 3
    row = Items(pack.folder).paths(range(len(pack))).index("cats/00001-colour.png")
    assert (pack.pixels(row) == photo(8, 8, seed=500)).all()


def test_a_stop_is_honoured_and_the_next_try_goes_on(
    tmp_path: Path, asked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "SHARD_SAMPLES", 100)
    make_photos(tmp_path / "photos", 600, height=8, width=8)

    def one_shard_is_complete() -> bool:
        return bool(list((tmp_path / "cache").glob(".*.tmp/part-*.json")))

    monkeypatch.setattr(build, "LOOK_EVERY_SECONDS", 0.0)
    with pytest.raises(StopRequested):
        prepare.prepare(make_run(tmp_path), one_shard_is_complete, lambda report: None)
    assert not list((tmp_path / "cache").glob("*/meta.json"))
    asked.clear()
    said = prepared(make_run(tmp_path))
    assert said.ready.prepared == "made"
    assert len(asked) < 600
    assert min(asked) >= 100, "the first shards were complete"


def test_killed_anywhere_it_is_complete_and_identical_or_not_there(tmp_path: Path) -> None:
    """A short form of `benchmarks.data.kill`: there the moments are seconds, here they are a few steps apart."""
    make_photos(tmp_path / "photos", 120, height=12, width=12)
    with start_preparing(make_run(tmp_path, cache_dir=tmp_path / "undisturbed")) as process:
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    undisturbed = Path(out.splitlines()[-1])
    expected = digest(undisturbed)
    for number, seals in enumerate((1, 5, 8)):
        folder = tmp_path / f"cache-{number}"
        run = make_run(tmp_path, cache_dir=folder)
        with start_preparing(run, die_after=seals) as process:
            assert process.wait(60) == -signal.SIGKILL
        there = folder / undisturbed.name
        assert not there.exists()
        with start_preparing(run) as process:
            _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        assert digest(there) == expected


def test_a_damaged_shard_of_a_killed_try_is_made_again(tmp_path: Path) -> None:
    make_photos(tmp_path / "photos", 120, height=12, width=12)
    run = make_run(tmp_path)
    with start_preparing(run, die_after=4) as process:
        assert process.wait(60) == -signal.SIGKILL
    [temporary] = (tmp_path / "cache").glob(".*.tmp")
    shard = temporary / "pixels-00001.bin"
    content = bytearray(shard.read_bytes())
    content[100] ^= 1
    shard.write_bytes(content)
    with start_preparing(run) as process:
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    pack = Pack(Path(out.splitlines()[-1]))
    for row, path in enumerate(Items(pack.folder).paths(range(120))):
        number = int(path[-9:-4])
        assert (pack.pixels(row) == photo(12, 12, seed=number)).all()


def test_ten_at_the_same_time_prepare_once(tmp_path: Path) -> None:
    make_photos(tmp_path / "photos", 200, height=12, width=12)
    processes = [start_preparing(make_run(tmp_path, job_id=f"trial-{number}")) for number in range(10)]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0] * 10, outputs
    folders = {out.splitlines()[-1] for out, _ in outputs}
    assert len(folders) == 1
    how = [json.loads(out.splitlines()[-2])["prepared"] for out, _ in outputs]
    assert sorted(how) == ["found"] * 9 + ["made"]


def test_a_waiting_one_can_be_stopped(tmp_path: Path) -> None:
    make_photos(tmp_path / "photos", 8)
    run = make_run(tmp_path)
    version = prepared(make_run(tmp_path, cache_dir=tmp_path / "other")).ready.dataset_version
    with cache.making(run.cache_dir, version, lambda: False), pytest.raises(StopRequested):
        prepare.prepare(run, lambda: True, lambda report: None)
    assert prepared(run).ready.prepared == "made"


LARGE = """
import sys
from pathlib import Path
from training_core.vision.convert import Packed, convert
from training_core.vision.packing import Packing
from tests.waiting import peak
packing = Packing(image_size=224, image_size_reason="", channels=3, encoding="jpeg", expected_bytes=0)
contents = [path.read_bytes() for path in sorted(Path(sys.argv[1]).iterdir())] * 3
done = list(convert(enumerate(contents), packing, 8))
assert all(isinstance(one, Packed) for one in done), done
assert [one.row for one in done] == list(range(len(contents)))
print(peak())
"""


def test_many_threads_with_huge_images_stay_within_memory(tmp_path: Path) -> None:
    """Eight images of 30 megapixels at once would take 8 x 330 MB."""
    for name, mode in (("a.png", "RGB"), ("b.png", "RGBA")):
        Image.new(mode, (6_000, 5_000), "red").save(tmp_path / name, compress_level=1)
    Image.new("RGB", (6_000, 5_000), "blue").save(tmp_path / "c.jpg", progressive=True)
    command = [sys.executable, "-c", LARGE, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 1.2 * 2**20, "kibibytes"


def test_nothing_of_it_imports_torch(tmp_path: Path) -> None:
    make_photos(tmp_path / "photos", 8)
    with start_preparing(make_run(tmp_path)) as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
