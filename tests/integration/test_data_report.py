"""`/data_report`: the file that the run wrote into the store, whole, small, unchanged, or not there yet."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import boto3
import httpx2
import pytest
from moto.server import ThreadedMotoServer

from api.book.models import Attempt
from api.errors import Problem
from api.settings import Settings
from api.store import Store
from local.ports import free_port
from tests.integration.conftest import SPEC, Control
from training_core.contract import reports
from training_core.contract.errors import Reason

CLAIMED = reports.Claimed(worker="host-a", incarnation="one")
PICTURE = "data:image/jpeg;base64," + "A" * 4000
REPORT: dict[str, Any] = {
    "dataset_version": "v1",
    "findings": [
        {"finding": "corrupt", "count": 3, "removed": 3, "examples": [{"path": "cat/ü.png", "thumbnail": PICTURE}]},
        {"finding": "dark", "count": 1, "removed": 0, "examples": [{"path": "dog/2.png", "thumbnail": PICTURE}]},
    ],
}
REMOVED = "".join(json.dumps({"path": f"cat/{number}.png", "reason": "corrupt"}) + "\n" for number in range(3))


def reported(path: str) -> reports.DataReported:
    return reports.DataReported(
        dataset_version="v1", path=path, images=100, findings={"corrupt": 3, "dark": 1}, removed={"corrupt": 3}
    )


def written(store: Path, job_id: str, report: dict[str, Any] = REPORT, removed: str = REMOVED) -> str:
    """The two files as a run leaves them; returns their folder below the store."""
    folder = store / "jobs" / job_id / "data_report"
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (("data_report.json", json.dumps(report)), ("removed.jsonl", removed)):
        temporary = folder / f".{name}.tmp"
        temporary.write_text(content)
        temporary.replace(folder / name)
    return f"jobs/{job_id}/data_report"


@pytest.fixture(params=["jobs", "dataset_checks"])
def url(request: pytest.FixtureRequest, client: httpx2.Client) -> str:
    """Of a job and of a dataset check that was just booked."""
    spec = SPEC if request.param == "jobs" else {"task": SPEC["task"], "dataset": SPEC["dataset"]}
    return str(client.post(f"/v1/{request.param}", json=spec).headers["location"])


def dispatched(control: Control) -> Attempt:
    control.heartbeat()
    control.dispatcher.dispatch()
    return control.attempts()[-1]


def test_there_is_none_until_the_data_was_inspected(client: httpx2.Client, control: Control, url: str) -> None:
    early = client.get(f"{url}/data_report")
    assert (early.status_code, early.json()["code"], early.json()["retryable"]) == (404, "not_found", True)
    assert "data.report" in early.json()["hint"]
    end = reports.Finished(reason=Reason.DATASET_UNREACHABLE, phase="preparing", message="no such bucket")
    control.report(dispatched(control), CLAIMED, end)
    late = client.get(f"{url}/data_report/removed")
    assert (late.status_code, late.json()["retryable"]) == (404, False)
    assert "ended before" in late.json()["hint"]


def test_the_report_is_the_runs_own_file(client: httpx2.Client, control: Control, url: str, tmp_path: Path) -> None:
    attempt = dispatched(control)
    control.report(attempt, CLAIMED, reported(written(tmp_path, attempt.job_id)))
    whole = client.get(client.get(url).json()["urls"]["data_report"])
    assert (whole.status_code, whole.headers["content-type"], whole.json()) == (200, "application/json", REPORT)
    assert whole.content == (tmp_path / "jobs" / attempt.job_id / "data_report" / "data_report.json").read_bytes()
    small = client.get(f"{url}/data_report?thumbnails=false")
    assert small.json()["findings"][0]["examples"] == [{"path": "cat/ü.png"}]
    assert len(small.content) < 1000 < len(whole.content)


def test_it_is_there_for_a_job_that_failed_on_its_data(
    client: httpx2.Client, control: Control, url: str, tmp_path: Path
) -> None:
    attempt = dispatched(control)
    end = reports.Finished(reason=Reason.IMAGE_CORRUPT, phase="preparing", message="cat/1.png is truncated")
    control.report(attempt, CLAIMED, reported(written(tmp_path, attempt.job_id)), end)
    job = client.get(url).json()
    assert (job["status"], job["data_report"]["removed"]) == ("failed", {"corrupt": 3})
    assert client.get(f"{url}/data_report").json() == REPORT


def test_an_unchanged_report_is_a_304_and_a_changed_one_is_not(
    client: httpx2.Client, control: Control, url: str, tmp_path: Path
) -> None:
    attempt = dispatched(control)
    control.report(attempt, CLAIMED, reported(written(tmp_path, attempt.job_id)))
    for path in (f"{url}/data_report", f"{url}/data_report?thumbnails=false", f"{url}/data_report/removed"):
        known = {"If-None-Match": client.get(path).headers["etag"]}
        same = client.get(path, headers=known)
        assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", known["If-None-Match"])
    known = {"If-None-Match": client.get(f"{url}/data_report").headers["etag"]}
    written(tmp_path, attempt.job_id, {**REPORT, "dataset_version": "v2"})  # as long as before
    fresh = client.get(f"{url}/data_report", headers=known)
    assert (fresh.status_code, fresh.json()["dataset_version"]) == (200, "v2")


def test_the_list_of_what_was_removed_comes_whole_or_in_ranges(
    client: httpx2.Client, control: Control, url: str, tmp_path: Path
) -> None:
    attempt = dispatched(control)
    control.report(attempt, CLAIMED, reported(written(tmp_path, attempt.job_id)))
    whole = client.get(f"{url}/data_report/removed")
    assert (whole.text, whole.headers["content-type"]) == (REMOVED, "application/x-ndjson")
    assert (whole.headers["accept-ranges"], whole.headers["content-length"]) == ("bytes", str(len(REMOVED)))
    rest = {"Range": "bytes=10-", "If-Range": whole.headers["etag"]}
    part = client.get(f"{url}/data_report/removed", headers=rest)
    assert (part.status_code, part.text) == (206, REMOVED[10:])
    assert part.headers["content-range"] == f"bytes 10-{len(REMOVED) - 1}/{len(REMOVED)}"
    assert client.get(f"{url}/data_report/removed", headers={"Range": "bytes=9999-"}).status_code == 416
    written(tmp_path, attempt.job_id, removed=REMOVED + REMOVED)
    other = client.get(f"{url}/data_report/removed", headers=rest)
    assert (other.status_code, other.text) == (200, REMOVED + REMOVED)
    written(tmp_path, attempt.job_id, removed="")
    nothing = client.get(f"{url}/data_report/removed")
    assert (nothing.status_code, nothing.content) == (200, b"")


def test_a_report_that_is_gone_and_a_path_that_leaves_the_store_are_404s(
    client: httpx2.Client, control: Control, url: str, tmp_path: Path
) -> None:
    attempt = dispatched(control)
    control.report(attempt, CLAIMED, reported("jobs/never/written"))
    gone = client.get(f"{url}/data_report")
    assert (gone.status_code, gone.json()["code"]) == (404, "not_found")
    (tmp_path.parent / "data_report.json").write_text("{}")
    for path in ("..", "/etc", "a/../.."):
        control.report(attempt, reported(path))
        assert client.get(f"{url}/data_report").status_code == 404, path


def test_a_store_that_does_not_answer_is_a_503(
    client: httpx2.Client, control: Control, url: str, tmp_path: Path, settings: Settings
) -> None:
    attempt = dispatched(control)
    control.report(attempt, CLAIMED, reported("jobs"))
    (tmp_path / "jobs").write_text("a file where a folder should be")
    answer = client.get(f"{url}/data_report")
    assert (answer.status_code, answer.json()["code"], answer.headers["retry-after"]) == (503, "store_unreachable", "5")


def test_the_store_may_be_a_bucket(tmp_path: Path, settings: Settings) -> None:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        store = bucket(settings, tmp_path, f"http://{host}:{port}")
        client = boto3.client(
            "s3", endpoint_url=f"http://{host}:{port}", aws_access_key_id="k", aws_secret_access_key="s",
            region_name="us-east-1",
        )  # fmt: skip
        client.create_bucket(Bucket="bucket")
        client.put_object(Bucket="bucket", Key="store/jobs/x/data_report.json", Body=b"[1]")
        first = store.look("jobs/x", "data_report.json")
        with store.open("jobs/x", "data_report.json") as file:
            assert file.read() == b"[1]"
        assert store.look("jobs/x", "data_report.json") == first
        assert store.sha256("jobs/x", "data_report.json") == hashlib.sha256(b"[1]").hexdigest()
        client.put_object(Bucket="bucket", Key="store/jobs/x/data_report.json", Body=b"[2]")
        assert store.look("jobs/x", "data_report.json") != first
        assert store.sha256("jobs/x", "data_report.json") == hashlib.sha256(b"[2]").hexdigest()
        with pytest.raises(Problem, match="not in the store") as problem:
            store.look("jobs/x", "removed.jsonl")
        assert problem.value.status == 404
    finally:
        server.stop()


def test_a_bucket_that_refuses_the_connection_is_a_503(settings: Settings, tmp_path: Path) -> None:
    store = bucket(settings, tmp_path, f"http://127.0.0.1:{free_port()}")
    with pytest.raises(Problem, match="does not answer") as problem:
        store.look("jobs/x/data_report", "data_report.json")
    assert problem.value.status == 503


def bucket(settings: Settings, folder: Path, endpoint: str) -> Store:
    secrets = folder / "secrets.json"
    secrets.write_text(json.dumps({"store": {"key": "k", "secret": "s", "endpoint_url": endpoint}}))
    return Store(settings.model_copy(update={"store": "s3://bucket/store", "store_credentials_file": secrets}))
