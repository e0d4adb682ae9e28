"""Roots and URI prefixes by project: what the operator's file says goes before the settings for all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from training_core.contract.messages import Ticket
from training_core.contract.run_dir import RunDir
from worker.access import Access
from worker.host import Host, Run
from worker.runner import claim, write_spec
from worker.settings import Settings

TOML = """
[projects.vision]
data_roots = ["/data/vision"]
allowed_uris = ["s3://vision/"]

[projects.closed]
data_roots = []
allowed_uris = []

[projects.half]
allowed_uris = ["https://half.example.org/"]
"""
JSON = json.dumps({"projects": {"vision": {"data_roots": ["/data/vision"], "allowed_uris": ["s3://vision/"]}}})


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    file = tmp_path / "access.toml"
    file.write_text(TOML)
    return settings.model_copy(
        update={"access_file": file, "data_roots": [Path("/data/all")], "allowed_uris": ["s3://all/"]}
    )


@pytest.mark.parametrize(
    ("project", "rights", "private"),
    [
        ("vision", (["/data/vision"], ["s3://vision/"]), True),
        ("closed", ([], ["file://"]), True),
        ("half", (["/data/all"], ["https://half.example.org/"]), True),
        ("default", (["/data/all"], ["s3://all/"]), False),
    ],
)
def test_a_run_is_told_the_rights_of_its_project_alone(
    host: Host, ticket: Callable[..., Ticket], project: str, rights: tuple[list[str], list[str]], private: bool
) -> None:
    run = claim(host, ticket(host, "complete", project=project))
    assert isinstance(run, Run)
    write_spec(host, run)
    told = RunDir(run.run_dir.path).read_spec()
    assert ([str(root) for root in told.data_roots], told.allowed_uris) == rights
    assert told.private is private
    assert told.readers == (project if private else None)


def test_json_says_the_same(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "access.json").write_text(JSON)
    access = Access(settings.model_copy(update={"access_file": tmp_path / "access.json"}))
    assert (access.data_roots("vision"), access.allowed_uris("vision")) == ([Path("/data/vision")], ["s3://vision/"])


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.toml", "[projects.vision]\nroots = []", "projects.vision.roots"),
        ("a.toml", '[projects.vision]\ndata_roots = ["data"]', "absolute path"),
        ("a.toml", "{}", "neither TOML"),
        ("a.json", TOML, "neither TOML"),
        ("a.json", None, "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_used_ends_the_worker_with_a_line(
    settings: Settings, tmp_path: Path, name: str, content: str | None, words: str
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(SystemExit, match=words) as ended:
        Access(settings.model_copy(update={"access_file": tmp_path / name}))
    assert str(ended.value).startswith("TRAINYARD_ACCESS_FILE: ")
