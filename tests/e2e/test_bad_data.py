"""Bad data ends a job in the preparing phase, with a reason that names the file and a way out; it never hangs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import SPEC, Service


def make(data: Path) -> None:
    """Data sets with one fault each, made from the good one."""
    if (data / "empty").exists():
        return
    (data / "empty").mkdir()
    first = sorted((data / "small").iterdir())[0]
    shutil.copytree(first, data / "one-class" / first.name)
    shutil.copytree(data / "small", data / "corrupt")
    victim = data / "corrupt" / first.name / "007.png"
    victim.write_bytes(victim.read_bytes()[:100])


@pytest.mark.parametrize(
    ("dataset", "reason", "named"),
    [
        ({"uri": "file://nowhere"}, "dataset_unreachable", "nowhere"),
        ({"uri": "file://empty"}, "dataset_empty", "empty"),
        ({"uri": "file://one-class"}, "dataset_invalid", "class"),
        ({"uri": "file://corrupt", "cleaning": {"max_bad_fraction": 0}}, "image_corrupt", "007.png"),
        ({"uri": "file:///etc"}, "dataset_forbidden", "/etc"),
    ],
)
def test_bad_data_says_what_and_where(
    service: Service, data: Path, dataset: dict[str, Any], reason: str, named: str
) -> None:
    make(data)
    job = service.ended(service.submit(**{**SPEC, "dataset": dataset}))
    assert (job["status"], job["reason"], job["error"]["phase"]) == ("failed", reason, "preparing"), job["error"]
    assert named in job["error"]["message"]
    assert job["error"]["hint"]
    assert job["attempt"] == 1
