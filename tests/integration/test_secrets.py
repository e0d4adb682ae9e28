"""Secrets of projects: stored sealed, never read back, named by jobs of their own project alone."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import httpx2
import psycopg
import pytest
import redis
from sqlalchemy import update

from api.book.database import Sessions
from api.book.models import Secret
from api.settings import Settings
from tests.integration.conftest import SECRETS_KEY as KEY
from tests.integration.conftest import SPEC, Control
from training_core.contract.messages import Ticket, host_queue
from training_core.contract.sealing import CannotOpen, Sealer, new_key, parse_keys

CANARY = {"key": "AKIACANARY00", "secret": "canary-secret-value", "endpoint_url": "http://minio.example.org:9000"}

WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, ""),
    ({"key": "canary"}, ""),
    ({"key": "canary", "secret": "canary", "anonymous": True}, ""),
    ({"key": "canary", "secret": "canary", "password": "canary"}, "/password"),
    ({"key": "canary\n", "secret": "canary"}, "/key"),
    ({"anonymous": True, "endpoint_url": "ftp://canary"}, "/endpoint_url"),
    ({"anonymous": True, "endpoint_url": "https://canary:canary@h"}, "/endpoint_url"),
    ({"anonymous": True, "endpoint_url": "https://h/?canary=1"}, "/endpoint_url"),
    ({"anonymous": True, "endpoint_url": "https://h:canary/"}, "/endpoint_url"),
    ({"options": {"token": "google_default"}}, "/options"),
    ({"options": {"token": "cloud"}}, "/options"),
    ({"options": {"token": "/etc/canary.json"}}, "/options"),
    ({"options": {"token": '{"type": "external_account", "canary": 1}'}}, "/options"),
    ({"options": {"account_name": "pets"}}, "/options"),
    ({"options": {"account_name": "canary.evil/", "account_key": "x"}}, "/options"),
    ({"options": {"connection_string": "AccountKey=canary"}}, "/options"),
    ({"options": {"endpoint_url": "http://canary", "token": "ya29.aaaaaaaaaaaaaaaaaaaa"}}, "/options"),
    ({"key": 1, "secret": "canary"}, "/key"),
]


@pytest.fixture
def settings(settings: Settings, request: pytest.FixtureRequest) -> Settings:
    """With a key, and with a file that lends `shared` to all, `theirs` to another project, `none` to none."""
    lent = {
        "shared": {"projects": "*", "key": "k", "secret": "s"},
        "theirs": {"projects": ["theirs"]},
        "none": {"key": "k", "secret": "s"},
        "store": {"key": "k", "secret": "s", "projects": "*"},
    }
    file = request.getfixturevalue("tmp_path") / "credentials.json"
    file.write_text(json.dumps(lent))
    return settings.model_copy(
        update={"secrets_key": type(settings.redis_url)(getattr(request, "param", KEY)), "credentials_file": file}
    )


def asking(api_url: str, key: str) -> httpx2.Client:
    return httpx2.Client(base_url=api_url, headers={"Authorization": f"Bearer {key}"}, timeout=20)


def job(name: str) -> dict[str, Any]:
    return {**SPEC, "dataset": {"uri": "s3://pets/x", "credentials": name}}


def test_a_secret_is_stored_listed_replaced_and_forgotten(client: httpx2.Client, settings: Settings) -> None:
    first = client.put("/v1/secrets/pets", json=CANARY)
    assert first.status_code == 201, first.text
    assert {**first.json(), "created_at": "", "updated_at": ""} == {
        "object": "secret", "name": "pets", "kind": "access_key", "fingerprint": first.json()["fingerprint"],
        "version": 1, "created_at": "", "updated_at": "",
    }  # fmt: skip
    same = client.put("/v1/secrets/pets", json=CANARY)
    assert (same.status_code, same.json()) == (200, first.json())
    other = client.put("/v1/secrets/pets", json=CANARY | {"secret": "another-canary-value"}).json()
    assert other["version"] == 2
    assert other["fingerprint"] != first.json()["fingerprint"]
    assert client.get("/v1/secrets/pets").json() == other
    assert client.get("/v1/secrets").json() == {
        "object": "list",
        "data": [other],
        "has_more": False,
        "next_cursor": None,
    }
    assert client.delete("/v1/secrets/pets").status_code == 204
    assert client.delete("/v1/secrets/pets").status_code == 404
    assert client.get("/v1/secrets/pets").status_code == 404


def test_the_book_holds_no_value_and_no_key(client: httpx2.Client, settings: Settings) -> None:
    client.put("/v1/secrets/pets", json=CANARY)
    with psycopg.connect(settings.database_url.get_secret_value().replace("+psycopg", "")) as connection:
        row = connection.execute("SELECT secrets::text, sealed FROM secrets").fetchone()
    assert row is not None
    assert b"canary" not in (row[0].encode() + row[1]).lower()


def test_nobody_sees_or_uses_the_secret_of_another_project(
    client: httpx2.Client, api_url: str, keys: Callable[[str], str]
) -> None:
    client.put("/v1/secrets/pets", json=CANARY)
    with asking(api_url, keys("theirs")) as theirs:
        assert theirs.get("/v1/secrets").json()["data"] == []
        assert theirs.get("/v1/secrets/pets").status_code == 404
        assert theirs.delete("/v1/secrets/pets").status_code == 404
        assert theirs.put("/v1/secrets/pets", json=CANARY).json()["version"] == 1
        assert theirs.post("/v1/jobs", json=job("theirs")).status_code == 202
    assert client.get("/v1/secrets/pets").json()["version"] == 1


def test_unknown_and_forbidden_names_answer_alike_wherever_a_spec_is_checked(client: httpx2.Client) -> None:
    client.put("/v1/secrets/pets", json=CANARY)
    for path in ("/v1/jobs", "/v1/jobs?validate_only=true", "/v1/plans", "/v1/dataset_checks"):
        answers = []
        for name in ("unknown", "theirs", "none"):
            answer = client.post(path, json=job(name))
            assert answer.status_code == 422, (path, name)
            assert answer.json()["errors"][0]["pointer"] == "/dataset/credentials"
            answers.append({k: v for k, v in answer.json().items() if k != "request_id"})
        assert answers[0] == answers[1] == answers[2]
        for name in ("pets", "shared"):
            assert client.post(path, json=job(name)).status_code in (200, 202), (path, name)
        refused = client.post(path, json=job("store")).json()
        assert refused["errors"][0]["pointer"] == "/dataset/credentials"
        assert "operator's own key" in refused["detail"]


def test_a_repeated_request_finds_its_job_when_the_secret_has_gone(client: httpx2.Client) -> None:
    client.put("/v1/secrets/pets", json=CANARY)
    asked = {"json": job("pets"), "headers": {"Idempotency-Key": "once"}}
    first = client.post("/v1/jobs", **asked)
    client.delete("/v1/secrets/pets")
    again = client.post("/v1/jobs", **asked)
    assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])


def test_a_body_of_the_wrong_shape_is_refused_without_an_echo(
    client: httpx2.Client,
) -> None:
    for body, pointer in WRONG:
        answer = client.put("/v1/secrets/pets", json=body)
        assert answer.status_code == 422, answer.text
        assert pointer in [one.get("pointer", "") for one in answer.json()["errors"]], body
        assert "canary" not in answer.text.replace("/password", "")
    assert client.get("/v1/secrets").json()["data"] == []


def test_a_wrong_name_is_refused(client: httpx2.Client) -> None:
    for name in ("store", "Pets", "a b", "-", "x" * 64, "a%00"):
        assert client.put(f"/v1/secrets/{name}", json=CANARY).status_code == 422, name


def test_a_project_has_so_many_secrets_and_no_more(client: httpx2.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.book.secrets.MOST_IN_A_PROJECT", 2)
    assert [client.put(f"/v1/secrets/n{i}", json=CANARY).status_code for i in range(3)] == [201, 201, 409]
    assert client.put("/v1/secrets/n0", json={"token": "hf_canary"}).status_code == 200


@pytest.mark.parametrize("settings", [""], indirect=True)
def test_without_a_key_every_route_names_the_setting(client: httpx2.Client) -> None:
    for method, path in (("PUT", "/a"), ("GET", "/a"), ("DELETE", "/a"), ("GET", "")):
        answer = client.request(method, f"/v1/secrets{path}", json=CANARY if method == "PUT" else None)
        assert (answer.status_code, answer.json()["code"]) == (503, "secrets_not_set_up")
        assert "TRAINYARD_SECRETS_KEY" in answer.json()["detail"]


def test_the_ticket_carries_what_the_jobs_project_has_sealed(
    client: httpx2.Client, control: Control, sessions: Sessions, redis_client: redis.Redis
) -> None:
    client.put("/v1/secrets/pets", json=CANARY)
    assert client.post("/v1/jobs", json=job("pets")).status_code == 202
    control.heartbeat()
    control.dispatcher.dispatch()
    [message] = redis_client.lrange(host_queue("host-a"), 0, -1)
    [tickets, *_] = json.loads(base64.b64decode(json.loads(message)["body"]))
    ticket = Ticket.model_validate(tickets[0])
    assert ticket.secret is not None
    assert "sealed" not in repr(ticket.secret)
    sealer = Sealer(parse_keys(KEY))
    opened = sealer.open(ticket.secret.project_id, ticket.secret.name, ticket.secret.sealed)
    assert json.loads(opened) == CANARY
    with pytest.raises(CannotOpen):
        sealer.open("prj_other", ticket.secret.name, ticket.secret.sealed)


def reseal(settings: Settings, keys: str) -> subprocess.CompletedProcess[str]:
    environment = {"TRAINYARD_DATABASE_URL": settings.database_url.get_secret_value(), "TRAINYARD_SECRETS_KEY": keys}
    command = [sys.executable, "-m", "api.secrets", "reseal"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_secrets_move_to_a_new_key(client: httpx2.Client, settings: Settings, sessions: Sessions) -> None:
    stored = [client.put(f"/v1/secrets/{name}", json=CANARY).json() for name in ("one", "two")]
    new = new_key()
    done = reseal(settings, f"{new},{KEY}")
    assert (done.returncode, done.stdout) == (0, "2 sealed anew\n"), done.stderr
    assert client.get("/v1/secrets").json()["data"] == stored
    with sessions.begin() as session:
        for row in session.query(Secret):
            assert json.loads(Sealer(parse_keys(new)).open(row.project_id, row.name, row.sealed)) == CANARY
        session.execute(update(Secret).where(Secret.name == "two").values(sealed=b"x" * 64))
    lost = reseal(settings, f"{new_key()},{new}")
    assert (lost.returncode, lost.stdout) == (1, "1 sealed anew\n")
    assert "two of prj_" in lost.stderr
