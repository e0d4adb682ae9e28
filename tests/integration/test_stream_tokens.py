"""Streams for browsers: tokens that open them and nothing else, allowed origins, and no token in any log."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest
from fastapi.testclient import TestClient

from api.app import create_app
from api.settings import Settings
from api.stream_tokens import Signer, StreamToken, Unreadable
from tests.integration.conftest import SPEC, Control
from tests.integration.test_control import CLAIMED, STARTED, dispatched, finished
from training_core.contract import reports
from training_core.contract.errors import Reason

ORIGIN = "https://app.example.org"


def token_of(client: httpx2.Client, **body: Any) -> str:
    answer = client.post("/v1/stream_tokens", json=body)
    assert (answer.status_code, answer.headers["cache-control"]) == (201, "no-store"), answer.text
    return str(answer.json()["token"])


@pytest.fixture
def page(api_url: str) -> Iterator[httpx2.Client]:
    """Without a key."""
    with httpx2.Client(base_url=api_url, timeout=20) as page:
        yield page


def test_a_token_opens_a_stream_and_nothing_else(client: httpx2.Client, page: httpx2.Client) -> None:
    job, other = (client.post("/v1/jobs", json=SPEC).json()["id"] for _ in range(2))
    for one in (job, other):
        client.post(f"/v1/jobs/{one}/cancel")
    mine, every = token_of(client, job_id=job), token_of(client)
    assert (
        page.get(f"/v1/jobs/{job}/stream?token={mine}")
        .text.rstrip()
        .splitlines()[-1]
        .endswith('"cancelled_by_client"}')
    )
    assert page.get(f"/v1/jobs/{other}/stream?token={mine}").status_code == 404
    assert page.get(f"/v1/jobs/{other}/stream", headers={"Authorization": f"Bearer {every}"}).status_code == 200
    assert page.get(f"/v1/jobs/{job}?token={mine}").status_code == 401
    assert page.post(f"/v1/stream_tokens?token={every}", json={}).status_code == 401
    for wrong in ("", "x", mine[:-1] + ("0" if mine[-1] != "0" else "1"), "st_é", "st_.", f"{every}.{every}"):
        assert page.get(f"/v1/jobs/{job}/stream", params={"token": wrong}).status_code == 401


def test_a_token_of_another_project_opens_nothing(
    client: httpx2.Client, page: httpx2.Client, keys: Callable[[str], str]
) -> None:
    job = client.post("/v1/jobs", json=SPEC).json()["id"]
    stranger = {"Authorization": f"Bearer {keys('other')}"}
    assert page.post("/v1/stream_tokens", json={"job_id": job}, headers=stranger).status_code == 404
    token = page.post("/v1/stream_tokens", json={}, headers=stranger).json()["token"]
    assert page.get(f"/v1/jobs/{job}/stream?token={token}").status_code == 404


def test_a_token_ends_and_holds_for_its_signer_alone() -> None:
    signer, token = Signer("k" * 32), StreamToken("prj_a", "key_a", None, 4_000_000_000)
    assert Signer("k" * 32).read(signer.sign(token)) == token
    with pytest.raises(Unreadable):
        Signer("").read(signer.sign(token))
    with pytest.raises(Unreadable):
        signer.read(signer.sign(token._replace(ends=1_000_000_000)))


def test_no_log_has_a_token(client: httpx2.Client, page: httpx2.Client, caplog: pytest.LogCaptureFixture) -> None:
    """uvicorn's own access log is on here."""
    access = logging.getLogger("uvicorn.access")
    access.addHandler(caplog.handler)
    try:
        with caplog.at_level(logging.INFO, logger="uvicorn.access"):
            page.get("/v1/jobs/job_x/stream?trial=1&token=st_AKIASECRET&x=y")
            page.get("/v1/jobs?%74oken=st_AKIASECRET")
    finally:
        access.removeHandler(caplog.handler)
    assert "/v1/jobs/job_x/stream?trial=1&x=y" in caplog.text
    assert "AKIASECRET" not in caplog.text


def test_progress_comes_when_it_says_something_new(client: httpx2.Client, control: Control) -> None:
    job_id, attempt = dispatched(client, control)
    told = reports.Progress(fraction=0.5, epoch=1, step=2, eta_seconds=0, images_per_second=9)
    control.report(attempt, CLAIMED, STARTED, told)
    with client.stream("GET", f"/v1/jobs/{job_id}/stream") as response:
        lines = response.iter_lines()
        seen = [next(line for line in lines if line.startswith("event: progress"))]
        control.report(attempt, told)
        client.post(f"/v1/jobs/{job_id}/cancel")
        control.report(attempt, finished(Reason.CANCELLED_BY_CLIENT))
        seen += [line for line in lines if line.startswith("event: ")]
    assert [line for line in seen if "progress" in line] == ["event: progress"]
    assert seen[-1] == "event: done"


@pytest.fixture
def crossing(settings: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(settings.model_copy(update={"allowed_origins": ORIGIN}))) as crossing:
        yield crossing


def test_pages_of_allowed_origins_may_ask(crossing: TestClient, client: httpx2.Client) -> None:
    asked = {
        "Origin": ORIGIN,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization",
    }
    allowed = crossing.options("/v1/jobs", headers=asked)
    assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, ORIGIN)
    answer = crossing.get("/v1/jobs", headers={"Origin": ORIGIN})
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (401, ORIGIN)
    assert "Request-Id" in answer.headers["access-control-expose-headers"]
    stranger = crossing.get("/v1/jobs", headers={"Origin": "https://evil.example.org"})
    assert "access-control-allow-origin" not in stranger.headers
    assert "access-control-allow-origin" not in client.get("/v1/jobs", headers={"Origin": ORIGIN}).headers


def test_answers_above_a_kilobyte_are_packed_for_those_who_take_it(client: httpx2.Client) -> None:
    client.post("/v1/jobs", json=SPEC)
    packed = client.get("/v1/jobs", headers={"Accept-Encoding": "gzip"})
    assert (packed.headers["content-encoding"], packed.headers["vary"]) == ("gzip", "Accept-Encoding")
    assert int(packed.headers["content-length"]) < len(packed.content)
    for header in ("identity", "gzip;q=0", "br", "*;q=0"):
        plain = client.get("/v1/jobs", headers={"Accept-Encoding": header})
        assert "content-encoding" not in plain.headers, header
        assert plain.json() == packed.json()
    small = client.get("/v1/jobs?limit=1&name=none", headers={"Accept-Encoding": "gzip"})
    assert "content-encoding" not in small.headers
