"""The OpenAPI document: names for clients, examples that run, every code and every type of event."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from api.app import create_app
from api.book.scopes import ROLES
from api.errors import Code
from api.event_types import EVENT_TYPES
from api.settings import Settings

ROOT = Path(__file__).parents[2]
OPERATION_ID = re.compile(r"[a-z]+(_[a-z]+)*\.[a-z]+(_[a-z]+)*")
Document = dict[str, Any]


@pytest.fixture
def document(settings: Settings) -> Document:
    return create_app(settings).openapi()


def operations(document: Document) -> list[tuple[str, str, Document]]:
    return [(method, path, one) for path, all_of in document["paths"].items() for method, one in all_of.items()]


def test_every_operation_has_an_id_of_its_own_that_a_client_can_be_made_of(document: Document) -> None:
    ids = [one["operationId"] for _, _, one in operations(document)]
    assert len(set(ids)) == len(ids)
    assert [one for one in ids if not OPERATION_ID.fullmatch(one)] == []
    assert {"jobs.create", "jobs.list", "jobs.get", "trials.get_best", "events.stream", "stream_tokens.create"} <= set(
        ids
    )


def test_every_example_of_a_body_is_taken(api_url: str, keys: Callable[..., str], document: Document) -> None:
    key = {"Authorization": f"Bearer {keys('default', ROLES['operator'])}"}
    taken = []
    for method, path, operation in operations(document):
        content = operation.get("requestBody", {}).get("content", {}).get("application/json")
        if content is None or "{" in path:
            continue
        assert content.get("examples"), f"{method} {path} shows no example"
        for example in content["examples"].values():
            answer = httpx2.request(method.upper(), api_url + path, json=example["value"], headers=key)
            assert answer.status_code < 300, (path, answer.text)
            taken.append(path)
    assert {"/v1/jobs", "/v1/plans", "/v1/dataset_checks", "/v1/stream_tokens"} <= set(taken)


def test_every_operation_says_who_may_ask_and_how_it_refuses(document: Document) -> None:
    for method, path, operation in operations(document):
        assert path in ("/healthz", "/readyz", "/metrics") or operation["security"], (method, path)
        for status, answer in operation["responses"].items():
            if status == "default" or (status.startswith(("4", "5")) and status != "409"):
                assert list(answer["content"]) == ["application/problem+json"], (path, status)
    schemes = document["components"]["securitySchemes"]
    assert {name: scheme["type"] for name, scheme in schemes.items()} == {"HTTPBearer": "http", "StreamToken": "apiKey"}


def test_every_code_stands_in_the_document_and_on_the_page(document: Document) -> None:
    known = set(document["components"]["schemas"]["Problem"]["properties"]["code"]["enum"])
    table = set(re.findall(r"`([a-z_]+)`", "".join(re.findall(r"^\| \d+ \|([^|]*)\|", _page("errors"), re.M))))
    assert known == {str(code) for code in Code} == table


def test_every_type_of_event_stands_in_the_document_and_on_the_page(document: Document) -> None:
    schemas = document["components"]["schemas"]
    assert schemas["EventType"]["anyOf"][0]["enum"] == list(EVENT_TYPES)
    assert schemas["EventAnswer"]["properties"]["type"] == {"$ref": "#/components/schemas/EventType"}
    assert set(re.findall(r"^\| `([a-z]+\.[a-z_]+)` \|", _page("streams"), re.M)) == set(EVENT_TYPES)


def test_a_stream_tells_what_its_messages_are(document: Document) -> None:
    stream = document["paths"]["/v1/jobs/{job_id}/stream"]["get"]
    message = stream["responses"]["200"]["content"]["text/event-stream"]["itemSchema"]
    others = document["components"]["schemas"][message["$ref"].split("/")[-1]]["properties"]["event"]["anyOf"][1]
    assert others["enum"] == ["metrics", "progress", "done", "closed"]
    assert [list(one) for one in stream["security"]] == [["HTTPBearer"], ["StreamToken"]]


def test_every_event_that_is_recorded_is_a_known_type() -> None:
    found = set()
    for file in (ROOT / "api").rglob("*.py"):
        found |= set(re.findall(r"(?:record_)?event\((?:\s*session, \w+,)?\s*\"([a-z]+\.[a-z_]+)\"", file.read_text()))
    assert len(found) > 15
    assert found <= set(EVENT_TYPES)


def test_every_reference_leads_somewhere(document: Document) -> None:
    wanted = set(re.findall(r"'#/components/schemas/([^']+)'", repr(document)))
    assert wanted <= set(document["components"]["schemas"])


def _page(name: str) -> str:
    return (ROOT / "docs" / f"{name}.md").read_text()
