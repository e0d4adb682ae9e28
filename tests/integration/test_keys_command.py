"""`python -m api.keys`: nothing that exists is revoked by making something, and everything is in the audit log."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest

from api import keys as command

Run = Callable[..., str]


@pytest.fixture
def run(database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Its output; its complaint where it refuses."""
    monkeypatch.setenv("TRAINYARD_DATABASE_URL", database_url)

    def run(*arguments: str) -> str:
        monkeypatch.setattr("sys.argv", ["api.keys", *arguments])
        capsys.readouterr()
        try:
            command.main()
        except SystemExit as refused:
            return f"{refused.code}\n{capsys.readouterr().err}"
        return capsys.readouterr().out.strip()

    return run


def works(api_url: str, key: str) -> bool:
    return httpx2.get(f"{api_url}/v1/jobs", headers={"Authorization": f"Bearer {key}"}).status_code == 200


def test_creating_a_name_twice_leaves_its_key_alone(run: Run, api_url: str) -> None:
    key = run("create", "--name", "ci")
    refusal = run("create", "--name", "ci")
    assert "has a key named ci" in refusal
    for way_out in ("--name", "rotate", "revoke", "ensure"):
        assert way_out in refusal
    assert works(api_url, key)


def test_ensure_keeps_a_valid_key_and_otherwise_takes_a_free_name(run: Run, api_url: str, tmp_path: Path) -> None:
    file = tmp_path / "key"
    first = run("ensure", "--name", "local", "--file", str(file))
    assert (file.read_text().strip(), stat.S_IMODE(file.stat().st_mode)) == (first, 0o600)
    assert run("ensure", "--name", "local", "--file", str(file)) == first
    elsewhere = run("ensure", "--name", "local", "--file", str(tmp_path / "other"))
    assert elsewhere != first
    assert works(api_url, first)
    assert works(api_url, elsewhere)
    run("revoke", "local")
    again = run("ensure", "--name", "local", "--file", str(file))
    assert again != first
    assert works(api_url, again)
    file.write_text("no key at all")
    assert works(api_url, run("ensure", "--name", "local", "--file", str(file)))


def test_rotate_list_and_revoke(run: Run, api_url: str) -> None:
    old = run("create", "--name", "ci", "--role", "viewer", "--expires-in-days", "30")
    new = run("rotate", "ci", "--overlap-hours", "1")
    assert works(api_url, old)
    assert works(api_url, new)
    listed = run("list").splitlines()
    assert len(listed) == 2
    assert all("data:read,jobs:read" in line and old not in line and new not in line for line in listed)
    assert "is revoked" in run("revoke", "ci")
    assert not works(api_url, new)
    assert works(api_url, old)  # the overlap is the old one's own
    assert "no such key" in run("revoke", "ci")
    assert "no project" in run("list", "--project", "nobody")
    assert "scopes are" in run("create", "--name", "x", "--scopes", "jobs:reed")


def test_the_command_line_is_in_the_log_without_a_key(run: Run, api_url: str) -> None:
    key = run("create", "--name", "ci")
    run("rotate", "ci", "--overlap-hours", "1")
    run("revoke", "ci")
    headers = {"Authorization": f"Bearer {key}"}
    log = httpx2.get(f"{api_url}/v1/audit", headers=headers).json()["data"]
    actions = ["api_keys.create", "api_keys.revoke", "api_keys.rotate", "projects.create"]
    assert sorted(entry["action"] for entry in log) == actions
    assert {(entry["key_id"], entry["address"]) for entry in log} == {(None, None)}
    assert key.split("_", 2)[2] not in str(log)
