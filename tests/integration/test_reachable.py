"""A spec whose folder no worker may read, or that is not there, says so before anything is booked."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from api import reachable
from tests.integration.conftest import SPEC, Control

Beat = Callable[..., None]


@pytest.fixture
def beat(control: Control) -> Beat:
    def beat(host: str = "elsewhere", **readable: list[str]) -> None:
        roots = {name.replace("everybody", "*"): folders for name, folders in readable.items()}
        control.heartbeat(worker="host-a", host=host, readable=roots)

    return beat


def warnings(client: httpx2.Client, uri: str) -> list[str]:
    spec: dict[str, Any] = SPEC | {"dataset": {"uri": uri}}
    answer = client.post("/v1/jobs", params={"validate_only": "true"}, json=spec)
    assert answer.status_code == 200, answer.text
    return [warning for warning in answer.json()["warnings"] if warning.startswith("dataset.uri")]


@pytest.mark.parametrize("uri", ["file:///home/me/pets", "zip://::file:///data-2/pets.zip"])
def test_a_folder_outside_of_all_roots_names_the_way_out(client: httpx2.Client, beat: Beat, uri: str) -> None:
    beat(everybody=["/data"])
    assert warnings(client, uri) == [reachable.FORBIDDEN]
    assert "TRAINYARD_DATA_ROOTS" in reachable.FORBIDDEN
    assert "make up DATA=" in reachable.FORBIDDEN


def test_a_folder_below_a_root_of_another_host_is_nobodys_guess(client: httpx2.Client, beat: Beat) -> None:
    beat(everybody=["/data"])
    assert warnings(client, "file:///data/pets") == []
    assert warnings(client, "file://pets") == []  # relative to the first root


def test_on_one_host_a_path_with_nothing_there_is_told(client: httpx2.Client, beat: Beat, tmp_path: Path) -> None:
    (tmp_path / "pets").mkdir()
    beat(host=socket.gethostname(), everybody=[str(tmp_path)])
    assert warnings(client, f"file://{tmp_path}/pets") == []
    assert warnings(client, "file://pets") == []
    assert warnings(client, f"file://{tmp_path}/cats") == [reachable.MISSING]


def test_a_project_with_roots_of_its_own_is_told_by_those(client: httpx2.Client, beat: Beat) -> None:
    beat(everybody=["/data"], default=["/vision"])
    assert warnings(client, "file:///vision/pets") == []
    assert warnings(client, "file:///data/pets") == [reachable.FORBIDDEN]


def test_without_a_worker_nothing_is_known(client: httpx2.Client) -> None:
    assert warnings(client, "file:///anywhere") == []
    assert warnings(client, "s3://pets/cats") == []
