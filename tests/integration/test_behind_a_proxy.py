"""Behind a proxy that ends TLS: clients are told the public address, and whoever is behind the proxy is who asked."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest
from sqlalchemy import select

from api.book.database import Sessions
from api.book.models import AuditEntry
from api.settings import Settings
from tests.integration.conftest import SPEC, serving

PUBLIC = "https://trainyard.example.org/ml"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"public_url": f"{PUBLIC}/"})


def addresses(answer: Any) -> Iterator[str]:
    """Every path of ours in an answer, with what stands before it."""
    yield from re.findall(r'"((?:https?://[^"]*)?/v1/[^"]*)"', json.dumps(answer))


def test_every_url_that_is_told_begins_with_the_public_one(client: httpx2.Client) -> None:
    created = client.post("/v1/jobs", json=SPEC)
    assert created.headers["location"] == f"{PUBLIC}/v1/jobs/{created.json()['id']}"
    told = list(addresses([created.json(), client.get("/v1/jobs").json()]))
    assert len(told) > 4
    assert [address for address in told if not address.startswith(PUBLIC)] == []
    assert client.get("/healthz").headers["strict-transport-security"].startswith("max-age=")


@pytest.mark.parametrize(
    ("trusted", "address"), [("127.0.0.1", "203.0.113.7"), ("192.0.2.0/24", "127.0.0.1")], ids=["a proxy", "anybody"]
)
def test_who_asked_is_believed_from_the_named_proxies_alone(
    settings: Settings, sessions: Sessions, keys: Callable[[str], str], trusted: str, address: str
) -> None:
    headers = {"Authorization": f"Bearer {keys('default')}", "X-Forwarded-For": "203.0.113.7"}
    with serving(settings, forwarded_allow_ips=trusted) as url, httpx2.Client(base_url=url, timeout=20) as client:
        assert client.post("/v1/jobs", json=SPEC, headers=headers).status_code == 202
    with sessions() as session:
        entry = session.scalars(select(AuditEntry).where(AuditEntry.action == "jobs.create")).one()
    assert entry.address == address
