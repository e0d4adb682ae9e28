"""Downloads to the letter: ETag, If-None-Match, If-Range, Range, HEAD, Repr-Digest, and files that were changed."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import httpx2
import pytest

from api import downloads
from tests.integration.conftest import SPEC, Control
from training_core.contract import reports

CONTENT = bytes(range(256)) * 40
SHA256 = hashlib.sha256(CONTENT).hexdigest()
ETAG = f'"{SHA256}"'
FILES = {"files": {"model.safetensors": len(CONTENT)}, "sha256": {"model.safetensors": SHA256}}
OTHER = '"' + "0" * 64 + '"'


@pytest.fixture(params=["checkpoints", "artifacts"])
def place(request: pytest.FixtureRequest, client: httpx2.Client, control: Control, tmp_path: Path) -> tuple[str, Path]:
    """The address of a file's download, and where the file lies."""
    job_id = client.post("/v1/jobs", json=SPEC).json()["id"]
    control.heartbeat()
    control.dispatcher.dispatch()
    path, size = f"jobs/{job_id}/trial-0/attempt-1/step-00000007", len(CONTENT)
    (tmp_path / path).mkdir(parents=True)
    file = tmp_path / path / "model.safetensors"
    file.write_bytes(CONTENT)
    saved = reports.CheckpointSaved(
        path=path, step=7, epoch=1, metrics={}, size_bytes=size, kept_because="best", **FILES
    )  # fmt: skip
    made = reports.ArtifactSaved(path=path, artifact="export", format="onnx", step=7, size_bytes=size, **FILES)
    line = saved if request.param == "checkpoints" else made
    control.report(control.attempts()[-1], reports.Claimed(worker="host-a", incarnation="one"), line)
    [listed] = client.get(f"/v1/jobs/{job_id}/{request.param}").json()["data"]
    assert (listed["files"], listed["sha256"]) == (FILES["files"], FILES["sha256"])
    return f"{listed['download_url']}?file=model.safetensors", file


def test_a_download_can_be_checked_and_a_head_says_the_same(client: httpx2.Client, place: tuple[str, Path]) -> None:
    whole, head = client.get(place[0]), client.head(place[0])
    assert (whole.status_code, whole.content) == (200, CONTENT)
    assert (head.status_code, head.content) == (200, b"")
    digest = base64.b64encode(hashlib.sha256(CONTENT).digest()).decode()
    for answer in (whole, head):
        assert answer.headers["etag"] == ETAG
        assert answer.headers["repr-digest"] == f"sha-256=:{digest}:"
        assert (answer.headers["content-length"], answer.headers["accept-ranges"]) == (str(len(CONTENT)), "bytes")
        assert answer.headers["content-disposition"].startswith('attachment; filename="job_')
        assert answer.headers["content-type"] == "application/octet-stream"


@pytest.mark.parametrize(
    ("known", "status"),
    [(ETAG, 304), (f"W/{ETAG}", 304), (f"{OTHER}, W/{ETAG}", 304), ("*", 304), (OTHER, 200), (SHA256, 200), ("", 200)],
)
def test_what_the_client_has_is_not_sent_again(
    client: httpx2.Client, place: tuple[str, Path], known: str, status: int
) -> None:
    for method in ("GET", "HEAD"):
        answer = client.request(method, place[0], headers={"If-None-Match": known})
        assert (answer.status_code, answer.headers["etag"]) == (status, ETAG)


@pytest.mark.parametrize(
    ("header", "span"),
    [
        ("bytes=10-19", (10, 20)), ("bytes=10-", (10, len(CONTENT))), ("bytes=-5", (len(CONTENT) - 5, len(CONTENT))),
        ("Bytes=0-999999", (0, len(CONTENT))), ("bytes=0-0", (0, 1)), ("bytes=9-3", None), ("bytes=0-1,5-6", None),
        ("items=0-1", None), ("bytes=-", None), ("bytes=a-b", None),
    ],
)  # fmt: skip
def test_one_range_is_a_part_and_anything_else_the_whole(
    client: httpx2.Client, place: tuple[str, Path], header: str, span: tuple[int, int] | None
) -> None:
    answer = client.get(place[0], headers={"Range": header})
    if span is None:
        assert (answer.status_code, answer.content) == (200, CONTENT)
        return
    assert (answer.status_code, answer.content) == (206, CONTENT[slice(*span)])
    assert answer.headers["content-range"] == f"bytes {span[0]}-{span[1] - 1}/{len(CONTENT)}"
    assert (answer.headers["content-length"], answer.headers["etag"]) == (str(span[1] - span[0]), ETAG)


def test_ranges_beyond_the_end_and_continuations_of_another_file(
    client: httpx2.Client, place: tuple[str, Path]
) -> None:
    for beyond in (f"bytes={len(CONTENT)}-", "bytes=-0"):
        answer = client.get(place[0], headers={"Range": beyond})
        assert (answer.status_code, answer.headers["content-range"]) == (416, f"bytes */{len(CONTENT)}")
    same = client.get(place[0], headers={"Range": "bytes=5-9", "If-Range": ETAG})
    assert (same.status_code, same.content) == (206, CONTENT[5:10])
    for other in (OTHER, f"W/{ETAG}", "Tue, 01 Dec 2026 00:00:00 GMT"):
        answer = client.get(place[0], headers={"Range": "bytes=5-9", "If-Range": other})
        assert (answer.status_code, answer.content) == (200, CONTENT), other
    assert client.head(place[0], headers={"Range": "bytes=5-9"}).headers["content-length"] == str(len(CONTENT))


@pytest.mark.parametrize("change", ["flipped", "longer", "shorter"])
def test_a_file_that_was_changed_in_the_store_is_an_error_and_never_a_mix(
    client: httpx2.Client, place: tuple[str, Path], change: str
) -> None:
    url, file = place
    assert client.get(url, headers={"Range": "bytes=0-4"}).status_code == 206
    flipped = bytes([CONTENT[0] ^ 1]) + CONTENT[1:]
    file.write_bytes({"flipped": flipped, "longer": CONTENT + b"!", "shorter": CONTENT[:-1]}[change])
    for asked in ({}, {"Range": "bytes=5-9", "If-Range": ETAG}):
        answer = client.get(url, headers=asked)
        assert (answer.status_code, answer.json()["code"]) == (409, "file_changed")
    file.write_bytes(CONTENT)
    assert client.get(url).content == CONTENT


def test_a_large_file_is_hashed_on_its_way_and_broken_off(
    client: httpx2.Client, place: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "HASHED_FIRST_BYTES", 100)
    monkeypatch.setattr(downloads, "PIECE_BYTES", 1000)
    url, file = place
    assert client.get(url).content == CONTENT
    file.write_bytes(CONTENT[:-1] + b"!")
    os.utime(file, ns=(1, 1))
    with pytest.raises(httpx2.RemoteProtocolError):
        client.get(url)
    assert client.get(url).status_code == 409  # by now it is known


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("model.onnx", 'attachment; filename="model.onnx"'),
        ('a"b.txt', "attachment; filename=\"a_b.txt\"; filename*=UTF-8''a%22b.txt"),
        ("é\r\nX: x", "attachment; filename=\"___X__x\"; filename*=UTF-8''%C3%A9%0D%0AX%3A%20x"),
    ],
)  # fmt: skip
def test_no_name_breaks_the_header(name: str, header: str) -> None:
    assert downloads.attachment(name) == header


def test_the_report_without_pictures_has_a_tag_of_its_own(
    client: httpx2.Client, control: Control, tmp_path: Path
) -> None:
    url: Any = client.post("/v1/jobs", json=SPEC).headers["location"]
    control.heartbeat()
    control.dispatcher.dispatch()
    attempt = control.attempts()[-1]
    (tmp_path / "jobs").mkdir(exist_ok=True)
    (tmp_path / "jobs" / "data_report.json").write_text('{"thumbnail": "x", "n": 1}')
    said = reports.DataReported(dataset_version="v", path="jobs", images=1, findings={}, removed={})
    control.report(attempt, reports.Claimed(worker="host-a", incarnation="one"), said)
    whole, small = client.get(f"{url}/data_report"), client.get(f"{url}/data_report?thumbnails=false")
    assert whole.headers["etag"] != small.headers["etag"]
    for answer in (whole, small):
        assert answer.headers["etag"] == f'"{hashlib.sha256(answer.content).hexdigest()}"'
    (tmp_path / "jobs" / "data_report.json").write_text(json.dumps({"text": "x" * 5000}))
    packed = client.get(f"{url}/data_report?thumbnails=false")
    assert (packed.headers["content-encoding"], packed.headers.get("repr-digest")) == ("gzip", None)
    plain = client.get(f"{url}/data_report?thumbnails=false", headers={"Accept-Encoding": "identity"})
    assert packed.headers["etag"] == f"W/{plain.headers['etag']}"
    assert "repr-digest" in plain.headers
    (tmp_path / "jobs" / "data_report.json").write_text('{"thumbnail": "x", "n": 1}')
    head = client.head(f"{url}/data_report?thumbnails=false")
    assert (head.headers["etag"], head.headers["content-length"]) == (small.headers["etag"], str(len(small.content)))
