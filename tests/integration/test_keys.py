"""API keys: made with no more than their maker has, shown once, rotated with an overlap, revoked for good."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest
from sqlalchemy import text

from api.auth import digest
from api.book.database import Sessions
from api.settings import Settings
from tests.integration.conftest import SPEC, Control
from tests.integration.test_control import CLAIMED, STARTED, dispatched, finished
from training_core.contract.errors import Reason

READER = {"name": "board", "scopes": ["jobs:read"]}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Nothing is remembered, so that each request shows what the book says."""
    return settings.model_copy(update={"key_cache_seconds": 0.0})


def made(client: httpx2.Client, **spec: Any) -> dict[str, Any]:
    answer = client.post("/v1/api_keys", json={**READER, **spec})
    assert answer.status_code == 201, answer.text
    body: dict[str, Any] = answer.json()
    return body


def status_of(client: httpx2.Client, key: str, path: str = "/v1/jobs") -> int:
    return int(client.get(path, headers={"Authorization": f"Bearer {key}"}).status_code)


def test_the_text_of_a_key_is_shown_once_and_stored_nowhere(client: httpx2.Client, sessions: Sessions) -> None:
    key = made(client)
    assert key["key"].startswith(key["prefix"] + "_")
    assert (key["status"], key["scopes"], key["last_used_at"]) == ("active", ["jobs:read"], None)
    assert status_of(client, key["key"]) == 200
    secret = key["key"].removeprefix(key["prefix"] + "_")
    for path in ("/v1/api_keys", f"/v1/api_keys/{key['id']}", "/v1/audit"):
        assert secret not in client.get(path).text
    with sessions() as session:
        rows = [str(row) for row in session.execute(text("SELECT a.* FROM api_keys a")).all()]
        stored = session.execute(text("SELECT secret_sha256 FROM api_keys WHERE id = :id"), {"id": key["id"]})
        assert stored.scalar_one() == digest(secret)
    assert not [row for row in rows if secret in row]


def test_a_name_in_use_is_refused_and_its_key_stays(client: httpx2.Client) -> None:
    key = made(client)
    again = client.post("/v1/api_keys", json=READER)
    assert (again.status_code, again.json()["code"]) == (409, "name_taken")
    assert "rotate or revoke" in again.json()["hint"]
    assert status_of(client, key["key"]) == 200
    client.post(f"/v1/api_keys/{key['id']}/revoke")
    assert made(client)["id"] != key["id"]  # a name that was given up is free


def test_what_makes_no_key_is_refused_by_its_field(client: httpx2.Client) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"scopes": ["jobs:reed"]}, "/scopes/0"),
        ({"scopes": []}, "/scopes"),
        ({"scopes": None}, "/role"),
        ({"role": "viewer"}, "/role"),
        ({"name": "../x"}, "/name"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "/expires_at"),
        ({"expires_at": "2099-01-01T00:00:00"}, "/expires_at"),
    ]
    for change, pointer in wrong:
        answer = client.post("/v1/api_keys", json={**READER, **change})
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer)


def test_a_key_grants_nothing_that_it_lacks_and_changes_no_stronger_one(
    client: httpx2.Client, keys: Callable[..., str]
) -> None:
    answer = client.post("/v1/api_keys", json={"name": "more", "role": "operator"})
    assert (answer.status_code, answer.json()["required_scope"]) == (403, "operator")
    operator = f"key_{keys('default', ['operator']).split('_')[1]}"
    for wish in ("rotate", "revoke"):
        answer = client.post(f"/v1/api_keys/{operator}/{wish}")
        assert (answer.status_code, answer.json()["required_scope"]) == (403, "operator")
    assert made(client, name="like-me", scopes=None, role="admin")["scopes"] == ["admin"]


def test_rotation_keeps_name_and_scopes_and_the_old_key_for_the_overlap(client: httpx2.Client) -> None:
    old = made(client)
    new = client.post(f"/v1/api_keys/{old['id']}/rotate?overlap_seconds=3600").json()
    assert (new["name"], new["scopes"], new["expires_at"]) == (old["name"], old["scopes"], None)
    assert (status_of(client, old["key"]), status_of(client, new["key"])) == (200, 200)
    replaced = client.get(f"/v1/api_keys/{old['id']}").json()
    left = datetime.fromisoformat(replaced["expires_at"]) - datetime.now(UTC)
    assert replaced["replaced_by"] == new["id"]
    assert timedelta(minutes=50) < left <= timedelta(hours=1)
    again = client.post(f"/v1/api_keys/{old['id']}/rotate")
    assert (again.status_code, again.json()["code"]) == (409, "key_ended")
    newest = client.post(f"/v1/api_keys/{new['id']}/rotate?overlap_seconds=0").json()
    assert [status_of(client, one["key"]) for one in (old, new, newest)] == [200, 401, 200]
    assert client.get(f"/v1/api_keys/{new['id']}").json()["status"] == "expired"


def test_a_rotation_does_not_lengthen_a_life(client: httpx2.Client) -> None:
    soon = (datetime.now(UTC) + timedelta(minutes=5)).isoformat()
    old = made(client, expires_at=soon)
    client.post(f"/v1/api_keys/{old['id']}/rotate?overlap_seconds=86400")
    assert client.get(f"/v1/api_keys/{old['id']}").json()["expires_at"] == old["expires_at"]
    past = client.post(f"/v1/api_keys/{old['id']}/rotate", params={"expires_at": "2020-01-01T00:00:00Z"})
    assert (past.status_code, past.json()["errors"][0]["parameter"]) == (422, "expires_at")


def test_revoking_is_at_once_and_for_good(client: httpx2.Client) -> None:
    key = made(client)
    first = client.post(f"/v1/api_keys/{key['id']}/revoke").json()
    assert (first["status"], status_of(client, key["key"])) == ("revoked", 401)
    assert client.post(f"/v1/api_keys/{key['id']}/revoke").json()["revoked_at"] == first["revoked_at"]
    actions = client.get("/v1/audit", params={"action": "api_keys.revoke"}).json()["data"]
    assert [entry["object_id"] for entry in actions] == [key["id"]]


def test_keys_come_in_pages_and_a_key_knows_itself(client: httpx2.Client) -> None:
    ids = [made(client, name=f"k{number}")["id"] for number in range(5)]
    seen, after = [], {}
    while True:
        page = client.get("/v1/api_keys", params={"limit": 2, **after}).json()
        seen += [key["id"] for key in page["data"]]
        if not page["has_more"]:
            break
        after = {"after": page["next_cursor"]}
    assert sorted(seen[:-1]) == sorted(ids)  # the last is the client's own
    assert client.get("/v1/api_keys/current").json()["id"] == seen[-1]


def test_the_use_of_a_key_is_written_once_a_minute(client: httpx2.Client, sessions: Sessions) -> None:
    key = made(client)
    query = text("SELECT last_used_at, xmin::text FROM api_keys WHERE id = :id")

    def written() -> Any:
        with sessions() as session:
            return session.execute(query, {"id": key["id"]}).one()

    assert status_of(client, key["key"]) == 200
    first = written()
    assert first[0] is not None
    assert [status_of(client, key["key"]) for _ in range(5)] == [200] * 5
    assert written() == first
    with sessions.begin() as session:
        earlier = text("UPDATE api_keys SET last_used_at = now() - interval '2 minutes' WHERE id = :id")
        session.execute(earlier, {"id": key["id"]})
    assert status_of(client, key["key"]) == 200
    assert written()[0] >= first[0]


def test_a_priority_needs_a_scope_of_its_own(client: httpx2.Client, keys: Callable[..., str]) -> None:
    def submit(key: str, query: str = "", priority: int = 5) -> httpx2.Response:
        headers = {"Authorization": f"Bearer {key}"}
        return client.post(f"/v1/jobs{query}", json={**SPEC, "priority": priority}, headers=headers)

    plain, ahead = keys("default", ["jobs:write"]), keys("default", ["jobs:write", "jobs:priority"])
    for query in ("", "?validate_only=true"):
        answer = submit(plain, query)
        assert (answer.status_code, answer.json()["required_scope"]) == (403, "jobs:priority")
    assert [submit(plain, priority=priority).status_code for priority in (0, -5)] == [202, 202]
    assert submit(ahead).status_code == 202


def test_events_say_whose_request_caused_them(
    client: httpx2.Client, control: Control, keys: Callable[..., str]
) -> None:
    mine = client.get("/v1/api_keys/current").json()["id"]
    job_id, attempt = dispatched(client, control)
    control.report(attempt, CLAIMED, STARTED)
    other = keys("default", ["jobs:write"])
    headers = {"Authorization": f"Bearer {other}"}
    assert client.post(f"/v1/jobs/{job_id}/pause", headers=headers).status_code == 202
    control.report(attempt, finished(Reason.PAUSED_BY_CLIENT))
    assert client.post(f"/v1/jobs/{job_id}/resume").status_code == 202
    assert client.post(f"/v1/jobs/{job_id}/cancel", headers=headers).status_code == 202
    events = client.get(f"/v1/jobs/{job_id}/events").json()["data"]
    theirs = f"key_{other.split('_')[1]}"
    assert {event["type"]: event["key_id"] for event in events} == {
        "job.created": mine, "job.preparing": None, "job.started": None, "job.paused": theirs, "job.resumed": mine,
        "job.cancelled": theirs,
    }  # fmt: skip


def test_an_operator_makes_a_project_with_its_first_key(client: httpx2.Client, keys: Callable[..., str]) -> None:
    headers = {"Authorization": f"Bearer {keys('default', ['operator'])}"}
    project = client.post("/v1/projects", json={"name": "pets"}, headers=headers).json()
    first = {"Authorization": f"Bearer {project['api_key']['key']}"}
    assert client.get("/v1/api_keys/current", headers=first).json()["project_id"] == project["id"]
    assert client.post("/v1/jobs", json=SPEC, headers=first).status_code == 202
    again = client.post("/v1/projects", json={"name": "pets"}, headers=headers)
    assert (again.status_code, again.json()["code"]) == (409, "name_taken")
    assert {one["name"] for one in client.get("/v1/projects", headers=headers).json()["data"]} == {"pets", "default"}
    assert client.get("/v1/jobs", headers=headers).status_code == 403  # it opens no project's jobs
