"""A dataset check through the real service: read, inspected and prepared on a worker, reported, and found by a job."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Service

TASK = "image-classification"


@pytest.fixture(scope="module")
def copies(data: Path) -> str:
    """The small data set with two images twice, and with one that is cut short among three hundred."""
    folder = data / "copies"
    shutil.copytree(data / "small", folder)
    label = sorted(path.name for path in folder.iterdir())[0]
    for number in (1, 2):
        shutil.copy(folder / label / f"{number:03}.png", folder / label / f"copy-{number}.png")
    content = (folder / label / "050.png").read_bytes()
    (folder / label / "050.png").write_bytes(content[: len(content) // 2])
    return "file://copies"


def checked(service: Service, **spec: Any) -> dict[str, Any]:
    with service.http() as http:
        answer = http.post("/v1/dataset_checks", json={"task": TASK, **spec})
        assert answer.status_code == 202, answer.text
    check: dict[str, Any] = service.get(f"{answer.headers['location']}?wait=60&until=terminal")
    assert check["terminal"], check
    return check


def test_a_check_reports_what_a_job_then_trains_on(service: Service, copies: str) -> None:
    check = checked(service, dataset={"uri": copies})
    assert (check["status"], check["reason"]) == ("succeeded", "completed"), check["error"]
    assert check["data_report"]["removed"] == {**check["data_report"]["removed"], "exact_duplicates": 2}
    assert sum(check["data"]["images"].values()) == 300 - 1
    assert check["data"]["prepared"] == "made"

    report = service.get(check["urls"]["data_report"])
    found = {one["finding"]: one for one in report["findings"]}
    assert found["exact_duplicates"]["removed"] == 2
    assert found["exact_duplicates"]["examples"][0]["thumbnail"].startswith("data:image/jpeg;base64,")
    with service.http() as http:
        small = http.get(f"{check['urls']['data_report']}?thumbnails=false")
        removed = http.get(f"{check['urls']['data_report']}/removed")
    assert "base64" not in small.text
    assert len([json.loads(line) for line in removed.text.splitlines()]) == 3

    spec = {"dataset": {"uri": copies}, "model": {"name": "small_cnn"}, "training": {"epochs": 1}}
    job = service.ended(service.submit(**spec))
    assert job["status"] == "succeeded", job["error"]
    assert (job["data"]["prepared"], job["data"]["images"]) == ("found", check["data"]["images"])
    assert job["data_report"]["findings"] == check["data_report"]["findings"]
    kinds = [event["type"] for event in service.events(job["id"])]
    assert kinds.index("data.report") < kinds.index("data.ready") < kinds.index("job.started")


def test_a_check_of_bad_data_fails_with_its_report(service: Service, copies: str) -> None:
    check = checked(service, dataset={"uri": copies, "cleaning": {"max_bad_fraction": 0}})
    assert (check["status"], check["reason"]) == ("failed", "image_corrupt")
    assert "050.png" in check["error"]["message"]
    report = service.get(check["urls"]["data_report"])
    assert any(one["finding"] == "truncated" and one["count"] == 1 for one in report["findings"])
    nowhere = checked(service, dataset={"uri": "file://nowhere"})
    assert nowhere["status"] == "failed"
    assert "ended before" in service.get(nowhere["urls"]["data_report"])["hint"]
