"""What one caller may ask, what everybody may ask together, and what a connection may cost."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx2
import psycopg
import pytest
from sqlalchemy import Engine, event

from api.settings import Settings
from tests.integration.conftest import SPEC
from tests.waiting import eventually

WRONG = "ty_01M8QRPA0B91NERSHMCZXTVRT1_" + "a" * 43


@pytest.fixture
def settings(settings: Settings, request: pytest.FixtureRequest) -> Settings:
    return settings.model_copy(update=getattr(request, "param", {}))


def limited(**changes: Any) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("settings", [changes], indirect=True, ids=["limited"])


@limited(rate_requests=6, rate_seconds=600.0)
def test_a_key_has_its_rate_and_answers_without_news_are_free(
    client: httpx2.Client, api_url: str, keys: Callable[[str], str]
) -> None:
    job = client.post("/v1/jobs", json=SPEC)
    assert job.headers["ratelimit-policy"] == '"requests";q=6;w=600'
    assert job.headers["ratelimit"].startswith('"requests";r=5;t=')
    path, known = f"/v1/jobs/{job.json()['id']}", {"If-None-Match": job.headers["etag"]}
    for _ in range(20):
        assert client.get(path, headers=known).status_code == 304
    assert [client.get(path).status_code for _ in range(6)] == [200] * 5 + [429]
    refused = client.get(path)
    assert (refused.json()["code"], refused.json()["retryable"]) == ("rate_limited", True)
    assert 1 < int(refused.headers["retry-after"]) <= 100
    assert refused.headers["ratelimit"].startswith('"requests";r=0;t=')
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.headers["request-id"] == refused.json()["request_id"]
    assert client.get("/healthz").status_code == 200
    other = {"Authorization": f"Bearer {keys('other')}"}
    assert httpx2.get(f"{api_url}/v1/jobs", headers=other).status_code == 200


@limited(open_waits=1, open_streams=1)
def test_each_kind_of_open_request_has_a_bound_of_its_own(client: httpx2.Client) -> None:
    job = client.post("/v1/jobs", json=SPEC).json()["id"]
    with ExitStack() as stack:
        waiting = threading.Thread(target=client.get, args=[f"/v1/jobs/{job}?wait=30&until=terminal"])
        waiting.start()
        refused = eventually(lambda: (now := client.get(f"/v1/jobs/{job}?wait=0.1")).status_code == 429 and now)
        assert refused.json()["code"] == "too_many_open"
        assert '"waits";q=1;qu="concurrent-requests"' in refused.headers["ratelimit-policy"]
        assert '"waits";r=0' in refused.headers["ratelimit"]
        assert client.get(f"/v1/jobs/{job}?wait=0").status_code == 200
        stream = stack.enter_context(client.stream("GET", f"/v1/jobs/{job}/stream"))
        assert stream.status_code == 200
        assert client.get(f"/v1/jobs/{job}/stream").status_code == 429
        client.post(f"/v1/jobs/{job}/cancel")
        waiting.join()
        for _ in stream.iter_lines():
            pass
    assert eventually(lambda: client.get(f"/v1/jobs/{job}/stream").status_code == 200)
    assert client.get(f"/v1/jobs/{job}?wait=5").status_code == 200


@limited(rate_guesses=3, rate_guesses_seconds=600.0)
def test_whoever_guesses_keys_is_held_up_before_the_database_is_asked(client: httpx2.Client, api_url: str) -> None:
    assert client.get("/v1/jobs").status_code == 200
    guesses = [WRONG[:-1] + letter for letter in "bcdefgh"]
    asked: list[str] = []
    note = lambda *found: asked.append(found[2])  # noqa: E731
    event.listen(Engine, "before_cursor_execute", note)
    try:
        answers = [httpx2.get(f"{api_url}/v1/jobs", headers={"Authorization": f"Bearer {one}"}) for one in guesses]
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    assert [answer.status_code for answer in answers] == [401] * 3 + [429] * 4
    assert answers[-1].json()["code"] == "too_many_attempts"
    assert int(answers[-1].headers["retry-after"]) > 1
    assert len(asked) == 3
    assert httpx2.get(f"{api_url}/v1/jobs").status_code == 429
    assert client.get("/v1/jobs").status_code == 200  # who was let in before is not held up by its neighbours


@limited(rate_guesses=1, rate_guesses_seconds=600.0)
def test_a_first_request_costs_no_guess(client: httpx2.Client, api_url: str, keys: Callable[[str], str]) -> None:
    for project in ("a", "b", "c"):
        headers = {"Authorization": f"Bearer {keys(project)}"}
        assert httpx2.get(f"{api_url}/v1/jobs/job_none", headers=headers).status_code == 404
        assert httpx2.get(f"{api_url}/v1/jobs", headers=headers).status_code == 200


@limited(places=1, patience_seconds=0.05)
def test_under_overload_the_api_sheds_and_health_answers(client: httpx2.Client, database_url: str) -> None:
    job = client.post("/v1/jobs", json=SPEC).json()["id"]
    with ExitStack() as stack:
        stream = stack.enter_context(client.stream("GET", f"/v1/jobs/{job}/stream"))
        lines = stream.iter_lines()
        answers: list[httpx2.Response] = []
        with psycopg.connect(database_url.replace("+psycopg", "")) as lock:
            lock.execute("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE")
            held = threading.Thread(target=lambda: answers.append(client.get(f"/v1/jobs/{job}")))
            held.start()
            eventually(lambda: waiting(lock))
            shed = client.get(f"/v1/jobs/{job}")
            assert shed.status_code == 503
            assert (shed.json()["code"], shed.json()["retryable"]) == ("overloaded", True)
            assert 2 <= int(shed.headers["retry-after"]) <= 6
            assert client.get("/healthz").status_code == 200
            lock.rollback()
        held.join()
        assert answers[0].status_code == 200
        client.post(f"/v1/jobs/{job}/cancel")
        assert any("job.cancelled" in line for line in lines)
    assert client.get(f"/v1/jobs/{job}").status_code == 200


def waiting(lock: psycopg.Connection[Any]) -> Any:
    """How many wait for a lock."""
    lock.execute("SELECT pg_stat_clear_snapshot()")
    row = lock.execute("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'").fetchone()
    return row and row[0]


class Raw:
    """A connection that says what it is told to."""

    def __init__(self, api_url: str, said: bytes = b"") -> None:
        self.socket = socket.create_connection(("127.0.0.1", int(api_url.rsplit(":", 1)[1])), timeout=10)
        self.socket.sendall(said)

    def answer(self) -> None:
        """To the end of a good one by /healthz."""
        found = b""
        while not found.endswith(b"}"):
            found += self.socket.recv(65536)
        assert found.startswith(b"HTTP/1.1 200")

    def is_refused(self, said: bytes) -> bool:
        try:
            self.socket.sendall(said)
        except OSError:
            return True
        return False

    def rest(self) -> bytes:
        """Until the server ends it."""
        found = b""
        try:
            while part := self.socket.recv(65536):
                found += part
        except ConnectionResetError:
            pass
        return found


@pytest.fixture
def raw(api_url: str) -> Iterator[Callable[..., Raw]]:
    made: list[Raw] = []

    def make(said: bytes = b"") -> Raw:
        made.append(Raw(api_url, said))
        return made[-1]

    yield make
    for one in made:
        one.socket.close()


HALF = b"GET /healthz HTTP/1.1\r\nHost: here\r\nX: "
WHOLE = b"GET /healthz HTTP/1.1\r\nHost: here\r\n\r\n"


@limited(header_seconds=0.4, keep_alive_seconds=1, receive_seconds=0.4)
def test_what_comes_slowly_by_halves_or_not_at_all_is_ended(raw: Callable[..., Raw], client: httpx2.Client) -> None:
    silent, half, again = raw(), raw(HALF), raw(WHOLE)
    again.answer()
    again.socket.sendall(HALF)
    body = raw(b"POST /v1/jobs HTTP/1.1\r\nHost: here\r\nContent-Length: 100\r\n\r\n{")
    trickle = raw(HALF)
    eventually(lambda: trickle.is_refused(b"x"))  # a byte now and then prolongs nothing
    assert silent.rest() == b""
    assert half.rest().startswith(b"HTTP/1.1 408")
    assert again.rest().startswith(b"HTTP/1.1 408")
    assert b"body_timeout" in body.rest()
    idle = raw(WHOLE)
    assert idle.rest().startswith(b"HTTP/1.1 200")  # and its end, a while after
    assert client.get("/healthz").status_code == 200


@limited(connections=3)
def test_who_waits_longest_makes_room_and_who_is_answered_keeps_it(
    raw: Callable[..., Raw], client: httpx2.Client
) -> None:
    job = client.post("/v1/jobs", json=SPEC).json()["id"]
    with client.stream("GET", f"/v1/jobs/{job}/stream") as stream:
        lines = stream.iter_lines()
        first, second = raw(HALF), raw()
        raw(WHOLE).answer()
        assert first.rest() == b""
        second.socket.sendall(WHOLE)
        second.answer()
        assert json.loads(next(line for line in lines if line.startswith("data:"))[5:])["type"] == "job.created"
