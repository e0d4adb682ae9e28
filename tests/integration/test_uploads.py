"""`POST /v1/datasets` in one body: forms and raw bodies, their names, sizes, hashes, quota, keys and failures."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import socket
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import func, select, text

from api.book.database import Sessions
from api.book.models import Dataset
from api.control.cleaner import Cleaner
from api.settings import Settings
from tests.integration.conftest import SPEC
from tests.waiting import eventually
from training_core.contract.uploads import UploadedFile, whole_sha256

FILES = {"train/cat/1.jpg": b"cat one" * 1000, "train/dog/ä 2.jpg": b"dog", "empty.txt": b""}
PART = b'--x\r\nContent-Disposition: form-data; name="%s"\r\n\r\nb'
BIG = bytes(range(256)) * 20_000  # beyond what is held back as a small file, and several pieces


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(
        update={
            "upload_quota_bytes": 20_000_000, "upload_limit_bytes": 12_000_000, "upload_part_limit_bytes": 6_000_000,
            "upload_files_limit": 20, "upload_stall_seconds": 0.5,
        }
    )  # fmt: skip


def form(files: dict[str, bytes]) -> list[tuple[str, tuple[str, bytes, str]]]:
    return [("files", (path, content, "application/octet-stream")) for path, content in files.items()]


def archive(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        for path, content in files.items():
            made.writestr(path, content)
    return out.getvalue()


def stored(tmp_path: Path) -> dict[str, bytes]:
    """All that lies in the store, by its place below the uploads."""
    root = tmp_path / "uploads"
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def held(sessions: Sessions) -> int:
    """What all uploads hold of quotas."""
    with sessions() as session:
        return int(session.execute(select(func.sum(Dataset.held_bytes))).scalar_one() or 0)


def test_a_form_of_files_keeps_its_folders(client: httpx2.Client, tmp_path: Path) -> None:
    answer = client.post("/v1/datasets", files=form(FILES), data={"name": "pets"})
    assert answer.status_code == 201, answer.text
    dataset = answer.json()
    assert answer.headers["location"] == f"/v1/datasets/{dataset['id']}"
    lines = sorted((path.encode(), hashlib.sha256(content).hexdigest()) for path, content in FILES.items())
    whole = hashlib.sha256(b"".join(digest.encode() + b"  " + path + b"\n" for path, digest in lines)).hexdigest()
    assert (dataset["state"], dataset["name"], dataset["files"]) == ("ready", "pets", 3)
    assert (dataset["size_bytes"], dataset["sha256"]) == (sum(map(len, FILES.values())), whole)
    there = stored(tmp_path)
    assert {path: there[f"{dataset['id']}/data/{path}"] for path in FILES} == FILES
    listed = [json.loads(line) for line in client.get(dataset["urls"]["files"]).text.splitlines()]
    assert [(one["path"].encode(), one["sha256"]) for one in listed] == lines
    assert client.get(answer.headers["location"]).json() == dataset
    assert [one["id"] for one in client.get("/v1/datasets").json()["data"]] == [dataset["id"]]


@pytest.mark.parametrize(
    ("media_type", "name", "file"),
    [
        ("application/zip", None, "data.zip"), ("application/zip", "pets", "pets.zip"),
        ("application/x-tar", "pets.tar", "pets.tar"), ("application/gzip", None, "data.tar.gz"),
        ("application/octet-stream", "pets.parquet", "pets.parquet"), ("text/csv; charset=utf-8", "a", "a.csv"),
    ],
)  # fmt: skip
def test_a_raw_body_is_one_file(
    client: httpx2.Client, tmp_path: Path, media_type: str, name: str | None, file: str
) -> None:
    query = {} if name is None else {"name": name}
    digest = base64.b64encode(hashlib.sha256(BIG).digest()).decode()
    headers = {"Content-Type": media_type, "Content-Digest": f"sha-256=:{digest}:"}
    answer = client.post("/v1/datasets", params=query, content=BIG, headers=headers)
    assert answer.status_code == 201, answer.text
    dataset = answer.json()
    assert (dataset["files"], dataset["sha256"]) == (1, hashlib.sha256(BIG).hexdigest())
    assert stored(tmp_path)[f"{dataset['id']}/data/{file}"] == BIG


def test_a_body_without_a_length_is_taken_as_it_comes(client: httpx2.Client, sessions: Sessions) -> None:
    def pieces() -> Iterator[bytes]:
        for start in range(0, len(BIG), 100_000):
            yield BIG[start : start + 100_000]

    answer = client.post("/v1/datasets", content=pieces(), headers={"Content-Type": "application/zip"})
    assert answer.json()["size_bytes"] == len(BIG)
    assert held(sessions) == len(BIG)  # and not the steps in which it was held


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd", "../x.jpg", "a/../../x.jpg", "a/./x.jpg", "a//x.jpg", "a\\x.jpg", "C:/x.jpg", "a/", "", " a.jpg",
        "a/b /c.jpg", "x\x7f.jpg", "a" * 201, "/".join("a" * 40), "a" * 150 + "/" + "b" * 150 + "/" + "c" * 600,
    ],
)  # fmt: skip
def test_hostile_names_are_refused_and_nothing_is_kept(client: httpx2.Client, tmp_path: Path, name: str) -> None:
    body = b"".join(
        b'--x\r\nContent-Disposition: form-data; name="files"; filename="%s"\r\n\r\nsome bytes\r\n' % one.encode()
        for one in ("good/1.jpg", name)
    )
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    answer = client.post("/v1/datasets", content=body + b"--x--\r\n", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request"), answer.text
    assert answer.json()["errors"][0]["parameter"] == "file 2"
    assert name not in answer.text or len(name) < 3
    assert stored(tmp_path) == {}
    assert client.get("/v1/datasets").json()["data"] == []


def test_two_names_of_one_file_are_refused(client: httpx2.Client, tmp_path: Path) -> None:
    for pair in (["a/1.jpg", "a/1.jpg"], ["caf\u00e9.jpg", "cafe\u0301.jpg"], ["a", "a/b.jpg"], ["a/b.jpg", "a"]):
        answer = client.post("/v1/datasets", files=[("files", (name, b"x")) for name in pair])
        assert answer.status_code == 422, pair
    assert stored(tmp_path) == {}


@pytest.mark.parametrize(
    ("content_type", "body", "status", "code"),
    [
        ("multipart/form-data", b"", 400, "malformed_multipart"),
        ("multipart/form-data; boundary=x", b"rubbish", 400, "malformed_multipart"),
        ("multipart/form-data; boundary=x", b"", 400, "malformed_multipart"),
        ("multipart/form-data; boundary=x", PART % b'files"; filename="a', 400, "malformed_multipart"),
        ("multipart/form-data; boundary=x", b"--x\r\nA: b\r\n\r\nc\r\n--x--\r\n", 400, "malformed_multipart"),
        ("multipart/form-data; boundary=x", b"--x\r\n" + b"A: b\r\n" * 50 + b"\r\nc\r\n--x--\r\n", 400,
         "malformed_multipart"),
        ("multipart/form-data; boundary=" + "x" * 300, b"", 400, "malformed_multipart"),
        ("multipart/form-data; boundary=x", b"--x--\r\n", 422, "invalid_request"),
        ("multipart/form-data; boundary=x", PART % b"y" + b"\r\n--x--\r\n", 422,
         "invalid_request"),
        ("application/zip", b"", 422, "invalid_request"),
        ("application/octet-stream", b"x", 422, "invalid_request"),
        ("image/jpeg", b"x", 415, "unsupported_media_type"),
        ("", b"x", 415, "unsupported_media_type"),
        ("application/json", b"{", 400, "malformed_json"),
        ("application/json", b'{"name": "x.exe"}', 422, "invalid_request"),
        ("application/json", b'{"name": "a/x.zip"}', 422, "invalid_request"),
        ("application/json", b'{"name": "x.zip", "size_bytes": 12000001}', 422, "invalid_request"),
        ("application/json", b'{"name": "x.zip", "sise_bytes": 1}', 422, "invalid_request"),
    ],
)  # fmt: skip
def test_bad_bodies_say_what_is_wrong(
    client: httpx2.Client, content_type: str, body: bytes, status: int, code: str
) -> None:
    answer = client.post("/v1/datasets", content=body, headers={"Content-Type": content_type})
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert client.get("/v1/datasets").json()["data"] == []


def test_a_wrong_digest_is_refused(client: httpx2.Client, tmp_path: Path) -> None:
    headers = {"Content-Type": "application/zip"}
    wrong = client.post(f"/v1/datasets?sha256={'0' * 64}", content=b"abc", headers=headers)
    assert (wrong.status_code, wrong.json()["code"]) == (422, "digest_mismatch")
    assert wrong.json()["sha256"] == hashlib.sha256(b"abc").hexdigest()
    for bad in ({"Content-Digest": "sha-256=abc"}, {"Content-Digest": "sha-256=:abc:"}):
        assert client.post("/v1/datasets", content=b"abc", headers=headers | bad).status_code == 422
    assert client.post("/v1/datasets?sha256=x", content=b"abc", headers=headers).status_code == 422
    assert stored(tmp_path) == {}


def test_limits_and_quota_say_their_numbers(client: httpx2.Client, tmp_path: Path) -> None:
    headers = {"Content-Type": "application/zip"}
    large = client.post("/v1/datasets", content=b"x" * 12_000_001, headers=headers)
    assert (large.status_code, large.json()["code"], large.json()["limit_bytes"]) == (413, "body_too_large", 12_000_000)
    stream = client.post("/v1/datasets", content=(b"x" * 1_000_000 for _ in range(13)), headers=headers)
    assert (stream.status_code, stream.json()["code"]) == (413, "body_too_large")
    many = client.post("/v1/datasets", files=form({f"{number}.jpg": b"x" for number in range(21)}))
    assert (many.status_code, "20 files" in many.json()["detail"]) == (413, True)
    assert client.post("/v1/datasets", content=b"x" * 11_000_000, headers=headers).status_code == 201
    over = client.post("/v1/datasets", content=b"y" * 10_000_000, headers=headers)
    assert (over.status_code, over.json()["code"]) == (413, "quota_exceeded")
    numbers = {name: over.json()[name] for name in ("quota_bytes", "used_bytes", "asked_bytes")}
    assert numbers == {"quota_bytes": 20_000_000, "used_bytes": 11_000_000, "asked_bytes": 10_000_000}
    assert sum(map(len, stored(tmp_path).values())) < 11_001_000
    [kept] = client.get("/v1/datasets").json()["data"]
    assert client.delete(kept["urls"]["self"]).status_code == 204
    assert client.post("/v1/datasets", content=b"y" * 10_000_000, headers=headers).status_code == 201


def test_a_key_makes_one_dataset(client: httpx2.Client, tmp_path: Path) -> None:
    key = {"Idempotency-Key": "one"}
    first = client.post("/v1/datasets", files=form(FILES), headers=key)
    again = client.post("/v1/datasets", files=form(dict(reversed(FILES.items()))), headers=key)
    assert (again.status_code, again.json()) == (201, first.json())
    assert again.headers["idempotency-replayed"] == "true"
    other = client.post("/v1/datasets", files=form({"a/1.jpg": b"x"}), headers=key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    parts = client.post("/v1/datasets", json={"name": "x.zip"}, headers=key)
    assert (parts.status_code, parts.json()["code"]) == (422, "idempotency_key_reused")
    assert len(client.get("/v1/datasets").json()["data"]) == 1


def head(host: str, key: str, length: int, more: str = "") -> bytes:
    return (
        f"POST /v1/datasets HTTP/1.1\r\nHost: {host}\r\nAuthorization: {key}\r\nContent-Type: application/zip\r\n"
        f"Content-Length: {length}\r\n{more}\r\n"
    ).encode()


def test_a_slow_body_is_cut_off_and_a_broken_one_leaves_nothing(client: httpx2.Client, tmp_path: Path) -> None:
    host, port = client.base_url.host, client.base_url.port
    key = client.headers["authorization"]
    with socket.create_connection((host, port)) as slow:
        slow.sendall(head(host, key, 1000) + b"PK")
        answer = slow.recv(10_000)
    assert b"408" in answer.split(b"\r\n")[0]
    assert b"connection: close" in answer.lower()
    with socket.create_connection((host, port)) as broken:
        broken.sendall(head(host, key, 5_000_000, "Idempotency-Key: k\r\n") + b"x" * 2_000_000)
        eventually(lambda: client.get("/v1/datasets").json()["data"])
        busy = client.post(
            "/v1/datasets", content=b"x", headers={"Content-Type": "application/zip", "Idempotency-Key": "k"}
        )
        assert (busy.status_code, busy.json()["code"]) == (409, "upload_in_progress")
        [coming] = client.get("/v1/datasets").json()["data"]
        assert client.delete(coming["urls"]["self"]).status_code == 409
    eventually(lambda: client.get("/v1/datasets").json()["data"] == [])
    eventually(lambda: stored(tmp_path) == {})


def test_a_deleted_dataset_is_gone_and_nobody_elses_is_seen(
    client: httpx2.Client, tmp_path: Path, api_url: str, keys: Callable[[str], str]
) -> None:
    dataset = client.post("/v1/datasets", files=form(FILES)).json()
    stranger = {"Authorization": f"Bearer {keys('other')}"}
    for method, path in (
        ("GET", ""), ("DELETE", ""), ("GET", "/files"), ("GET", "/parts"), ("PUT", "/parts/1"), ("POST", "/complete"),
    ):  # fmt: skip
        answer = httpx2.request(method, f"{api_url}/v1/datasets/{dataset['id']}{path}", headers=stranger)
        assert answer.status_code == 404, (method, path)
    assert httpx2.get(f"{api_url}/v1/datasets", headers=stranger).json()["data"] == []
    assert client.delete(dataset["urls"]["self"]).status_code == 204
    assert client.get(dataset["urls"]["self"]).status_code == 404
    assert client.delete(dataset["urls"]["self"]).status_code == 404
    assert stored(tmp_path) == {}


def test_a_spec_takes_the_id_of_a_ready_dataset_of_its_project_alone(
    client: httpx2.Client, api_url: str, keys: Callable[[str], str]
) -> None:
    dataset = client.post("/v1/datasets", files=form(FILES)).json()
    unfinished = client.post("/v1/datasets", json={"name": "x.zip"}).json()
    foreign = {"Authorization": f"Bearer {keys('other')}"}

    def spec(dataset_id: str, **more: Any) -> dict[str, Any]:
        return {"task": SPEC["task"], "dataset": {"uri": dataset_id, **more}}

    for path in ("jobs", "dataset_checks", "plans", "jobs?validate_only=true"):
        url = f"{api_url}/v1/{path}"
        for wrong, who in ((dataset["id"], foreign), (unfinished["id"], {}), ("dataset_" + "0" * 26, {})):
            answer = client.post(url, json=spec(wrong), headers=who)
            assert answer.status_code == 422, (path, answer.text)
            assert answer.json()["errors"][0]["pointer"] == "/dataset/uri"
            assert wrong not in answer.text
        assert client.post(url, json=spec(dataset["id"])).status_code in (200, 202), path
        assert client.post(url, json=spec(f"zip://train::{dataset['id']}")).status_code in (200, 202), path
    assert client.post("/v1/jobs", json=spec(dataset["id"], credentials="x")).status_code == 422
    for other in ("dataset_1", f"{dataset['id']}/x", f"{dataset['id']}::file:///x", dataset["id"].lower()):
        assert client.post("/v1/jobs", json=spec(other)).status_code == 422, other


def test_a_dataset_stays_while_an_open_job_reads_it(client: httpx2.Client, tmp_path: Path) -> None:
    dataset = client.post("/v1/datasets", files=form(FILES)).json()
    job = client.post("/v1/jobs", json={"task": SPEC["task"], "dataset": {"uri": dataset["id"]}}).json()
    kept = client.delete(dataset["urls"]["self"])
    assert (kept.status_code, kept.json()["code"], kept.json()["jobs"]) == (409, "dataset_in_use", [job["id"]])
    assert len(stored(tmp_path)) == len(FILES) + 1
    client.post(f"/v1/jobs/{job['id']}/cancel")
    assert client.delete(dataset["urls"]["self"]).status_code == 204
    assert client.get(f"/v1/jobs/{job['id']}").json()["terminal"] is True


def test_what_a_dead_server_left_is_cleared_away(
    client: httpx2.Client, sessions: Sessions, settings: Settings, tmp_path: Path
) -> None:
    dataset = client.post("/v1/datasets", files=form(FILES)).json()
    with sessions.begin() as session:
        session.execute(text(
            "UPDATE datasets SET state = 'uploading', expires_at = now() - interval '1 s', ready_at = NULL"
        ))  # fmt: skip
    Cleaner(sessions, settings).clean()
    assert client.get(dataset["urls"]["self"]).status_code == 404
    assert stored(tmp_path) == {}
    with sessions() as session:
        assert session.execute(text("SELECT why_gone, held_bytes FROM datasets")).one() == ("failed", 0)


def test_the_hash_of_many_files_is_that_of_sha256sum() -> None:
    one, two = (UploadedFile(path=path, size=1, sha256=hashlib.sha256(path.encode()).hexdigest()) for path in "ba")
    lines = f"{two.sha256}  a\n{one.sha256}  b\n"
    assert whole_sha256([one, two]) == hashlib.sha256(lines.encode()).hexdigest()
    assert whole_sha256([one]) == one.sha256
