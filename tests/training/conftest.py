"""Small data and a local S3 for the trainings."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3  # type: ignore[import-untyped]
import pytest
from moto.server import ThreadedMotoServer

from tests.training.running import KEPT, Run, make_images, make_run

SECRET = "a-secret-that-must-not-be-told"


@pytest.fixture(scope="session")
def original_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("original") / "stripes")


@pytest.fixture
def images(tmp_path: Path, original_images: Path) -> Path:
    """72 images in three class folders, below the only folder that a run may read; yours to spoil."""
    return Path(shutil.copytree(original_images, tmp_path / "stripes"))


@pytest.fixture(scope="session")
def first_job(tmp_path_factory: pytest.TempPathFactory, original_images: Path) -> Run:
    """A job that has learned the three classes."""
    folder = tmp_path_factory.mktemp("first")
    run = make_run(
        folder, f"file://{original_images}", training={"epochs": 6}, job_id="first", data_roots=[original_images.parent]
    )
    assert run.finish() == 0, run.log()
    return run


@pytest.fixture
def weights(tmp_path: Path, first_job: Run) -> str:
    """The id of that job's checkpoint, which lies in the store of your runs."""
    shutil.copytree(first_job.file("jobs/first"), tmp_path / "store" / "jobs" / "first")
    return KEPT


@dataclass(frozen=True)
class S3:
    endpoint: str
    credentials_file: Path

    def client(self) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id="k",
            aws_secret_access_key=SECRET,
            region_name="us-east-1",
        )

    def upload(self, folder: Path, bucket: str, prefix: str) -> None:
        client = self.client()
        client.create_bucket(Bucket=bucket)
        for path in sorted(folder.rglob("*.png")):
            client.upload_file(str(path), bucket, f"{prefix}/{path.relative_to(folder).as_posix()}")


@pytest.fixture
def s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    """A real S3 over HTTP on a free port of loopback."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    entry = {"endpoint_url": endpoint, "key": "k", "secret": SECRET}
    refused = {"endpoint_url": "http://127.0.0.1:9", "key": "k", "secret": SECRET}
    file = tmp_path / "credentials.json"
    file.write_text(json.dumps({"pets": entry, "store": entry, "nobody-there": refused}))
    yield S3(endpoint, file)
    server.stop()
