"""Streams and held answers end with the key that opened them, whether the bell comes or not."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest
from sqlalchemy import event, text

from api.auth import Principal
from api.book.database import Sessions
from api.keyring import Keyring
from api.notifications import Notifications
from api.settings import Settings
from tests.integration.conftest import SPEC

NOT_TOLD = "UPDATE api_keys SET {} WHERE id = :id"  # without the notification that a revocation sends


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"key_cache_seconds": 0.2})


@pytest.fixture
def guest(api_url: str, keys: Callable[..., str]) -> Iterator[httpx2.Client]:
    headers = {"Authorization": f"Bearer {keys('default', ['jobs:read'])}"}
    with httpx2.Client(base_url=api_url, headers=headers, timeout=20) as guest:
        yield guest


@pytest.fixture
def job_id(client: httpx2.Client) -> str:
    return str(client.post("/v1/jobs", json=SPEC).json()["id"])


def id_of(guest: httpx2.Client) -> str:
    return f"key_{guest.headers['authorization'].split('_')[1]}"


@contextmanager
def meanwhile(work: Callable[[], Any]) -> Iterator[list[Any]]:
    """Runs `work` beside the block, and after it waits until `work` is done; its answer is in the list then."""
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(work()))
    thread.start()
    yield answers
    thread.join(timeout=20)
    assert not thread.is_alive(), "it goes on without its key"


def revoked(client: httpx2.Client, key_id: str, _: Sessions) -> None:
    assert client.post(f"/v1/api_keys/{key_id}/revoke").status_code == 200


def rotated(client: httpx2.Client, key_id: str, _: Sessions) -> None:
    assert client.post(f"/v1/api_keys/{key_id}/rotate?overlap_seconds=0").status_code == 201


def revoked_without_a_bell(_: httpx2.Client, key_id: str, sessions: Sessions) -> None:
    with sessions.begin() as session:
        session.execute(text(NOT_TOLD.format("revoked_at = now()")), {"id": key_id})


def expiring(_: httpx2.Client, key_id: str, sessions: Sessions) -> None:
    with sessions.begin() as session:
        session.execute(text(NOT_TOLD.format("expires_at = now() + interval '0.3 seconds'")), {"id": key_id})


@pytest.mark.parametrize("end", [revoked, rotated, revoked_without_a_bell, expiring])
def test_a_stream_and_a_wait_end_with_their_key(
    client: httpx2.Client, guest: httpx2.Client, sessions: Sessions, job_id: str,
    end: Callable[[httpx2.Client, str, Sessions], None],
) -> None:  # fmt: skip
    opened = threading.Event()

    def stream() -> list[str]:
        told = []
        with guest.stream("GET", f"/v1/jobs/{job_id}/stream") as response:
            for line in response.iter_lines():
                if line.startswith(("event:", "data:")):
                    told.append(line.partition(": ")[2])
                    opened.set()
        return told

    with meanwhile(lambda: guest.get(f"/v1/jobs/{job_id}?wait=15&until=terminal")) as held, meanwhile(stream) as told:
        assert opened.wait(timeout=10)
        end(client, id_of(guest), sessions)
    assert (held[0].status_code, held[0].json()["code"]) == (401, "unauthenticated")
    assert (told[0][0], told[0][-2]) == ("job.created", "closed")
    assert json.loads(told[0][-1])["code"] == "unauthenticated"
    assert guest.get("/v1/jobs").status_code == 401


def test_many_streams_of_one_key_ask_the_book_once(
    settings: Settings, sessions: Sessions, keys: Callable[..., str]
) -> None:
    key_id = f"key_{keys('default').split('_')[1]}"
    keyring = Keyring(sessions, Notifications(settings), cache_seconds=60)
    asked: list[str] = []

    async def all_of_them() -> list[str]:
        over = asyncio.Event()

        async def one() -> str:
            await over.wait()
            return "done"

        await keyring.require(key_id)
        event.listen(sessions.kw["bind"], "before_cursor_execute", lambda *what: asked.append(what[2]))
        streams = [asyncio.create_task(keyring.during(Principal("prj", key_id), one())) for _ in range(50)]
        await asyncio.sleep(0)
        over.set()
        return await asyncio.gather(*streams)

    assert asyncio.run(all_of_them()) == ["done"] * 50
    assert asked == []
