"""Server-sent events and checkpoint downloads over real HTTP."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx2

from api.book.database import Sessions
from tests.integration.conftest import Control
from tests.integration.test_control import CLAIMED, STARTED, checkpoint, dispatched, finished, metric
from training_core.contract import reports
from training_core.contract.errors import Reason


def read_stream(
    client: httpx2.Client, job_id: str, last_event_id: str | None = None, trial: int | None = None
) -> list[dict[str, Any]]:
    """Every message until the server ends the stream."""
    headers = {"Last-Event-ID": last_event_id} if last_event_id else {}
    path = f"/v1/jobs/{job_id}/stream" + (f"?trial={trial}" if trial is not None else "")
    messages: list[dict[str, Any]] = []
    with client.stream("GET", path, headers=headers) as response:
        if response.status_code == 204:
            return messages
        assert response.headers["content-type"].startswith("text/event-stream")
        fields: dict[str, str] = {}
        for line in response.iter_lines():
            if not line and fields:
                messages.append({**fields, "data": json.loads(fields["data"])})
                fields = {}
            elif line and not line.startswith(":"):
                name, _, value = line.partition(": ")
                fields[name] = value
    return messages


def test_the_stream_is_the_list_and_resumes_without_gap_or_repeat(client: httpx2.Client, control: Control) -> None:
    job_id, attempt = dispatched(client, control)
    control.report(attempt, CLAIMED, STARTED, metric(1, 1.0), metric(2, 2.0), finished(Reason.COMPLETED))
    everything = read_stream(client, job_id)
    listed = client.get(f"/v1/jobs/{job_id}/events").json()["data"]
    assert [m["data"] for m in everything if m["event"].startswith(("job.", "checkpoint."))] == listed
    assert everything[-1]["event"] == "done"
    points = [m["data"]["series"][0]["steps"] for m in everything if m["event"] == "metrics"]
    assert points == [[1, 2]]
    second = next(m for m in everything if m["event"].startswith("job.") and m["data"]["seq"] == 2)
    rest = read_stream(client, job_id, second["id"])
    assert [m["data"]["seq"] for m in rest if m["event"].startswith("job.")] == [e["seq"] for e in listed[2:]]
    assert read_stream(client, job_id, everything[-1]["id"]) == []


def test_a_live_stream_hears_what_happens(client: httpx2.Client, control: Control) -> None:
    import threading

    job_id, attempt = dispatched(client, control)
    heard: list[dict[str, Any]] = []
    listener = threading.Thread(target=lambda: heard.extend(read_stream(client, job_id)))
    listener.start()
    for line in (CLAIMED, STARTED, metric(1, 1.0), metric(2, 0.5), finished(Reason.EARLY_STOPPED)):
        control.report(attempt, line)
    listener.join(timeout=20)
    assert not listener.is_alive()
    steps = [s for m in heard if m["event"] == "metrics" for s in m["data"]["series"][0]["steps"]]
    assert steps == [1, 2]
    assert heard[-1]["event"] == "done"


def test_open_streams_hold_no_database_connection(client: httpx2.Client, control: Control, sessions: Sessions) -> None:
    from contextlib import ExitStack

    job_id, _ = dispatched(client, control)
    with ExitStack() as stack:
        for _ in range(25):  # more than the pool has
            response = stack.enter_context(client.stream("GET", f"/v1/jobs/{job_id}/stream"))
            assert response.status_code == 200
        assert client.get(f"/v1/jobs/{job_id}").status_code == 200


def test_a_checkpoint_downloads_whole_and_in_parts(client: httpx2.Client, control: Control, tmp_path: Path) -> None:
    job_id, attempt = dispatched(client, control)
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "model.safetensors").write_bytes(b"0123456789")
    control.report(attempt, CLAIMED, STARTED, checkpoint(4, "c"))
    listed = client.get(f"/v1/jobs/{job_id}/checkpoints").json()["data"]
    assert [(row["step"], row["kept_because"]) for row in listed] == [(4, "best")]
    url = listed[0]["download_url"]
    assert client.get(url).content == b"0123456789"
    part = client.get(url, headers={"Range": "bytes=2-4"})
    assert (part.status_code, part.content, part.headers["content-range"]) == (206, b"234", "bytes 2-4/10")
    assert client.get(url, headers={"Range": "bytes=-3"}).content == b"789"
    assert client.get(url, headers={"Range": "bytes=10-"}).status_code == 416
    assert client.get(f"{url}?file=../secret").status_code == 404
    (tmp_path / "c" / "model.safetensors").unlink()
    assert client.get(url).json()["code"] == "not_found"
    control.report(attempt, reports.CheckpointDeleted(path="c"))
    assert client.get(f"/v1/jobs/{job_id}/checkpoints").json()["data"] == []


def test_a_checkpoint_path_never_leaves_the_store(client: httpx2.Client, control: Control, tmp_path: Path) -> None:
    job_id, attempt = dispatched(client, control)
    (tmp_path.parent / "model.safetensors").write_bytes(b"not yours")
    control.report(attempt, CLAIMED, STARTED, checkpoint(4, ".."))
    url = client.get(f"/v1/jobs/{job_id}/checkpoints").json()["data"][0]["download_url"]
    assert client.get(url).status_code == 404
