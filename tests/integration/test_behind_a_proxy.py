"""Behind a proxy that ends TLS: clients are told the public address, and whoever is behind the proxy is who asked."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from api.settings import Settings
from tests.integration.conftest import SPEC

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
