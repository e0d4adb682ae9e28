"""Uploads in parts: any order, again, by several servers, into a folder or a bucket; put together once; given up."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import httpx2
import pytest
import uvicorn
from moto.server import ThreadedMotoServer
from sqlalchemy import func, select, text

from api.app import create_app
from api.book.database import Sessions
from api.book.models import Dataset, DatasetPart
from api.control.cleaner import Cleaner
from api.settings import Settings
from api.uploads import vault
from api.uploads.holding import alone
from local.ports import free_port
from tests.waiting import eventually

PARTS = [os.urandom(700_000), os.urandom(1_200_000), os.urandom(10)]
WHOLE = b"".join(PARTS)
SHA256 = hashlib.sha256(WHOLE).hexdigest()


class Folder:
    def __init__(self, settings: Settings, root: Path) -> None:
        self.settings, self._root = settings, root

    def stored(self) -> dict[str, bytes]:
        root = self._root / "uploads"
        return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


class Bucket:
    def __init__(self, settings: Settings, root: Path, endpoint: str) -> None:
        secrets = root / "secrets.json"
        secrets.write_text(json.dumps({"store": {"key": "k", "secret": "s", "endpoint_url": endpoint}}))
        self._bucket = f"bucket-{uuid.uuid4().hex}"  # all servers of moto in one process have the same buckets
        changes = {"store": f"s3://{self._bucket}/below", "store_credentials_file": secrets}
        self.settings = settings.model_copy(update=changes)
        self._client = boto3.client(
            "s3", endpoint_url=endpoint, aws_access_key_id="k", aws_secret_access_key="s", region_name="us-east-1"
        )
        self._client.create_bucket(Bucket=self._bucket)

    def stored(self) -> dict[str, bytes]:
        found = self._client.list_objects_v2(Bucket=self._bucket).get("Contents", [])
        keys = [one["Key"] for one in found if one["Key"].startswith("below/uploads/")]
        return {
            key.removeprefix("below/uploads/"): self._client.get_object(Bucket=self._bucket, Key=key)["Body"].read()
            for key in keys
        }


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, settings: Settings, tmp_path: Path) -> Iterator[Folder | Bucket]:
    settings = settings.model_copy(update={"upload_quota_bytes": 5_000_000, "upload_limit_bytes": 4_000_000})
    if request.param == "folder":
        yield Folder(settings, tmp_path)
        return
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield Bucket(settings, tmp_path, f"http://{host}:{port}")
    server.stop()


def serving(settings: Settings) -> Iterator[str]:
    port = free_port()
    config = uvicorn.Config(
        create_app(settings), port=port, log_level="warning", timeout_graceful_shutdown=2, ws="none"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    eventually(lambda: server.started)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


@pytest.fixture
def api_url(place: Folder | Bucket) -> Iterator[str]:
    yield from serving(place.settings)


@pytest.fixture
def second(place: Folder | Bucket, client: httpx2.Client) -> Iterator[httpx2.Client]:
    """Of another server on the same book and store."""
    for url in serving(place.settings):
        with httpx2.Client(base_url=url, headers=client.headers, timeout=20) as second:
            yield second


def begun(client: httpx2.Client, **spec: Any) -> str:
    answer = client.post("/v1/datasets", json={"name": "pets.zip", **spec})
    assert (answer.status_code, answer.json()["state"]) == (201, "uploading"), answer.text
    assert answer.headers["location"] == answer.json()["urls"]["self"]
    return str(answer.headers["location"])


def held(sessions: Sessions) -> int:
    with sessions() as session:
        return int(session.execute(select(func.sum(Dataset.held_bytes))).scalar_one() or 0)


def test_parts_come_in_any_order_through_any_server_and_make_one_file(
    client: httpx2.Client, second: httpx2.Client, place: Folder | Bucket, sessions: Sessions
) -> None:
    url = begun(client, size_bytes=len(WHOLE), sha256=SHA256)
    digest = base64.b64encode(hashlib.sha256(PARTS[2]).digest()).decode()
    third = second.put(f"{url}/parts/3", content=PARTS[2], headers={"Content-Digest": f"sha-256=:{digest}:"})
    assert (third.status_code, third.json()["size_bytes"]) == (200, 10)
    missing = client.post(f"{url}/complete")
    assert (missing.status_code, missing.json()["code"], missing.json()["missing"]) == (
        409,
        "upload_incomplete",
        [1, 2],
    )
    for number in (2, 1):
        sha256 = hashlib.sha256(PARTS[number - 1]).hexdigest()
        part = client.put(f"{url}/parts/{number}?sha256={sha256}", content=PARTS[number - 1]).json()
        assert (part["number"], part["sha256"]) == (number, sha256)
    listed = second.get(f"{url}/parts").json()
    assert [(one["number"], one["size_bytes"]) for one in listed["data"]] == [(1, 700_000), (2, 1_200_000), (3, 10)]
    assert [one["number"] for one in client.get(f"{url}/parts?limit=1&after=1").json()["data"]] == [2]
    done = second.post(f"{url}/complete")
    assert (done.status_code, done.json()["state"], done.json()["sha256"]) == (200, "ready", SHA256)
    again = client.post(f"{url}/complete")
    assert (again.status_code, again.json()) == (200, done.json())
    dataset_id = done.json()["id"]
    there = place.stored()
    assert set(there) == {f"{dataset_id}/data/pets.zip", f"{dataset_id}/files.jsonl"}
    assert there[f"{dataset_id}/data/pets.zip"] == WHOLE
    assert held(sessions) == len(WHOLE)
    late = client.put(f"{url}/parts/4", content=b"x")
    assert (late.status_code, late.json()["code"]) == (409, "upload_ended")
    assert client.get(f"{url}/files").json() == {"path": "pets.zip", "size": len(WHOLE), "sha256": SHA256}
    assert client.delete(url).status_code == 204
    assert (place.stored(), held(sessions)) == ({}, 0)


def test_a_part_that_is_damaged_or_sent_again(
    client: httpx2.Client, place: Folder | Bucket, sessions: Sessions
) -> None:
    url = begun(client)
    wrong = client.put(f"{url}/parts/1?sha256={'0' * 64}", content=PARTS[0])
    assert (wrong.status_code, wrong.json()["code"]) == (422, "digest_mismatch")
    assert client.put(f"{url}/parts/1", content=b"").status_code == 422
    assert (place.stored(), held(sessions)) == ({}, 0)
    client.put(f"{url}/parts/1", content=PARTS[1])
    client.put(f"{url}/parts/1", content=PARTS[0])
    assert (list(place.stored().values()), held(sessions)) == ([PARTS[0]], len(PARTS[0]))
    for number in ("0", "10001", "x"):
        assert client.put(f"{url}/parts/{number}", content=b"x").status_code == 422
    done = client.post(f"{url}/complete").json()
    assert done["sha256"] == hashlib.sha256(PARTS[0]).hexdigest()


def test_what_was_announced_must_come(client: httpx2.Client) -> None:
    url = begun(client, size_bytes=5, sha256=hashlib.sha256(b"12345").hexdigest())
    assert client.post(f"{url}/complete").json()["missing"] == [1]
    client.put(f"{url}/parts/1", content=b"1234")
    short = client.post(f"{url}/complete")
    numbers = (short.json()["received_bytes"], short.json()["announced_bytes"])
    assert (short.status_code, short.json()["code"], numbers) == (409, "upload_incomplete", (4, 5))
    client.put(f"{url}/parts/1", content=b"12346")
    other = client.post(f"{url}/complete")
    assert (other.status_code, other.json()["code"]) == (422, "digest_mismatch")
    client.put(f"{url}/parts/1", content=b"12345")
    assert client.post(f"{url}/complete").json()["state"] == "ready"


def test_limits_and_quota_hold_over_parts(client: httpx2.Client, place: Folder | Bucket, sessions: Sessions) -> None:
    url, other = begun(client), begun(client)
    full = b"x" * 2_000_000
    for number in (1, 2):
        assert client.put(f"{url}/parts/{number}", content=full).status_code == 200
    large = client.put(f"{url}/parts/3", content=full)
    assert (large.status_code, large.json()["limit_bytes"]) == (413, 4_000_000)
    over = client.put(f"{other}/parts/1", content=full)
    assert (over.status_code, over.json()["code"], over.json()["used_bytes"]) == (413, "quota_exceeded", 4_000_000)
    announced = client.post("/v1/datasets", json={"name": "x.zip", "size_bytes": 3_000_000})
    assert (announced.status_code, announced.json()["code"]) == (413, "quota_exceeded")
    assert client.put(f"{other}/parts/1", content=b"y" * 1_000_000).status_code == 200
    assert held(sessions) == 5_000_000
    assert client.delete(url).status_code == 204
    assert held(sessions) == 1_000_000
    assert len(place.stored()) == 1


def test_two_at_once_never_pass_the_quota_together(client: httpx2.Client, sessions: Sessions) -> None:
    urls = [begun(client) for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda url: client.put(f"{url}/parts/1", content=b"x" * 1_500_000), urls))
    assert sorted(answer.status_code for answer in answers) == [200] * 3 + [413] * 3
    assert held(sessions) == 4_500_000


def test_one_call_puts_the_parts_together_and_others_are_told_to_wait(
    client: httpx2.Client, sessions: Sessions
) -> None:
    url = begun(client)
    client.put(f"{url}/parts/1", content=PARTS[0])
    with alone(sessions, url.rsplit("/", 1)[1]) as granted:
        assert granted
        busy = client.post(f"{url}/complete")
        assert (busy.status_code, busy.json()["state"], busy.headers["retry-after"]) == (202, "uploading", "2")
    assert client.post(f"{url}/complete").json()["state"] == "ready"


def test_an_upload_that_is_forgotten_expires(client: httpx2.Client, place: Folder | Bucket, sessions: Sessions) -> None:
    url, kept = begun(client), begun(client)
    for one in (url, kept):
        client.put(f"{one}/parts/1", content=PARTS[0])
    late = text("UPDATE datasets SET expires_at = now() - interval '1 second' WHERE id = :id")
    with sessions.begin() as session:
        session.execute(late, {"id": url.rsplit("/", 1)[1]})
    Cleaner(sessions, place.settings).clean()
    assert (client.get(url).status_code, client.put(f"{url}/parts/2", content=b"x").status_code) == (404, 404)
    assert (len(place.stored()), held(sessions)) == (1, len(PARTS[0]))
    assert client.post(f"{kept}/complete").json()["state"] == "ready"
    with sessions() as session:
        assert session.scalars(select(DatasetPart)).all() == []


def test_a_key_begins_one_upload(client: httpx2.Client) -> None:
    key = {"Idempotency-Key": "one"}
    first = client.post("/v1/datasets", json={"name": "a.zip"}, headers=key)
    again = client.post("/v1/datasets", json={"name": "a.zip"}, headers=key)
    assert (again.json()["id"], again.headers["idempotency-replayed"]) == (first.json()["id"], "true")
    other = client.post("/v1/datasets", json={"name": "b.zip"}, headers=key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    url = first.headers["location"]
    client.put(f"{url}/parts/1", content=b"x")
    client.post(f"{url}/complete")
    assert client.post("/v1/datasets", json={"name": "a.zip"}, headers=key).json()["state"] == "ready"
    client.delete(url)
    assert client.post("/v1/datasets", json={"name": "a.zip"}, headers=key).json()["id"] != first.json()["id"]


@pytest.mark.parametrize("place", ["folder"], indirect=True)
def test_a_full_disk_is_a_507_and_leaves_nothing(
    client: httpx2.Client, place: Folder | Bucket, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = begun(client)
    client.put(f"{url}/parts/1", content=b"kept")
    monkeypatch.setattr(vault, "SPARE_BYTES", 2**60)
    zipped = {"Content-Type": "application/zip"}
    for answer in (
        client.put(f"{url}/parts/2", content=b"x"),
        client.post("/v1/datasets", content=b"x", headers=zipped),
        client.post(f"{url}/complete"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (507, "store_full")
        assert "retry-after" in answer.headers
    assert (list(place.stored().values()), held(sessions)) == ([b"kept"], 4)
    monkeypatch.undo()
    assert client.post(f"{url}/complete").json()["state"] == "ready"
