"""The audit log: every change with its doer, nothing else, for good."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from api.book.database import Sessions
from tests.integration.conftest import SPEC


def entries(client: httpx2.Client, **narrow: Any) -> list[dict[str, Any]]:
    answer = client.get("/v1/audit", params=narrow)
    assert answer.status_code == 200, answer.text
    data: list[dict[str, Any]] = answer.json()["data"]
    return data


def submitted(client: httpx2.Client, **headers: str) -> httpx2.Response:
    return client.post("/v1/jobs", json=SPEC, headers=headers)


def test_a_change_has_its_key_its_address_and_its_request(client: httpx2.Client) -> None:
    answer = submitted(client)
    (entry,) = entries(client, action="jobs.create")
    mine = client.get("/v1/api_keys/current").json()["id"]
    assert (entry["object_id"], entry["key_id"], entry["address"]) == (answer.json()["id"], mine, "127.0.0.1")
    assert entry["request_id"] == answer.headers["request-id"]


def test_what_changes_nothing_is_not_in_the_log(client: httpx2.Client) -> None:
    job_id = submitted(client, **{"Idempotency-Key": "one"}).json()["id"]
    assert submitted(client, **{"Idempotency-Key": "one"}).headers["idempotency-replayed"] == "true"
    client.post("/v1/jobs?validate_only=true", json=SPEC)
    for _ in range(3):
        assert client.post(f"/v1/jobs/{job_id}/cancel").status_code == 202
    assert client.post(f"/v1/jobs/{job_id}/pause").status_code == 409
    assert client.post("/v1/api_keys", json={"name": "x", "role": "operator"}).status_code == 403
    assert [entry["action"] for entry in entries(client, object_id=job_id)] == ["jobs.cancel", "jobs.create"]
    assert {entry["action"] for entry in entries(client)} == {
        "jobs.cancel", "jobs.create", "api_keys.create", "projects.create"
    }  # fmt: skip


def test_nothing_is_changed_or_taken_out(client: httpx2.Client, sessions: Sessions) -> None:
    submitted(client)
    for wrong in ("UPDATE audit_log SET action = 'nothing'", "DELETE FROM audit_log", "TRUNCATE audit_log"):
        with pytest.raises(IntegrityError, match="only added to"), sessions.begin() as session:
            session.execute(text(wrong))
    assert len(entries(client, action="jobs.create")) == 1


def test_filters_narrow_it_and_pages_follow_each_other(client: httpx2.Client, keys: Callable[..., str]) -> None:
    start = datetime.now(UTC) - timedelta(minutes=1)
    other = keys("default", ["jobs:write"])
    for number in range(6):
        submitted(client, **({"Authorization": f"Bearer {other}"} if number % 2 else {}))
    theirs = f"key_{other.split('_')[1]}"
    assert {entry["key_id"] for entry in entries(client, key_id=theirs)} == {theirs}
    assert len(entries(client, key_id=theirs)) == 3
    assert len(entries(client, action="jobs.")) == 6
    assert entries(client, created_before=start.isoformat()) == []
    assert len(entries(client, created_after=start.isoformat(), action="jobs.create")) == 6
    first = client.get("/v1/audit", params={"limit": 4, "action": "jobs."}).json()
    rest = client.get("/v1/audit", params={"limit": 4, "action": "jobs.", "after": first["next_cursor"]}).json()
    ids = [entry["id"] for entry in first["data"] + rest["data"]]
    assert len(ids) == 6
    assert ids == sorted(set(ids), reverse=True)
    assert rest["has_more"] is False


def test_another_project_sees_its_own_log_alone(client: httpx2.Client, keys: Callable[..., str]) -> None:
    job_id = submitted(client).json()["id"]
    neighbour = {"Authorization": f"Bearer {keys('neighbours')}"}
    log = client.get("/v1/audit", headers=neighbour).json()["data"]
    assert {entry["action"] for entry in log} == {"projects.create", "api_keys.create"}
    assert job_id not in str(log)
