"""The few calls that the demo makes, as any backend would make them."""

from __future__ import annotations

import json
import queue
import threading
import time
import uuid
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import httpx2

JsonObject = dict[str, Any]
IDLE_SECONDS = 0.5
STREAM_SILENCE_SECONDS = 20.0  # the server sends a sign of life every 15 s


class Refused(Exception):
    """The API said no; the message is its own, with its hint."""


class Client:
    def __init__(self, url: str, key: str) -> None:
        # Nothing between us and the loopback interface: a proxy from the environment would only be in the way.
        self._http = httpx2.Client(
            base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=10.0, trust_env=False
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def ready(self) -> bool:
        try:
            return self._http.get("/readyz").status_code == 200
        except httpx2.TransportError:
            return False

    def authenticated(self) -> bool:
        return self._http.get("/v1/workers").status_code != 401

    def worker_online(self) -> bool:
        return any(worker["status"] == "online" for worker in self._get("/v1/workers")["data"])

    def submit(self, spec: JsonObject) -> JsonObject:
        """With a key of its own, so that a repeated request would not start a second training."""
        answer = self._http.post("/v1/jobs", json=spec, headers={"Idempotency-Key": str(uuid.uuid4())})
        return _content(answer)

    def job(self, job_id: str) -> JsonObject:
        return self._get(f"/v1/jobs/{job_id}")

    def checkpoints(self, job_id: str) -> list[JsonObject]:
        data: list[JsonObject] = self._get(f"/v1/jobs/{job_id}/checkpoints")["data"]
        return data

    def follow(self, job_id: str) -> Iterator[tuple[str, JsonObject]]:
        """(event, data) of the job's stream until its `done`; takes up a broken connection where it ended.

        Every `IDLE_SECONDS` without news an ("idle", {}) comes instead, so that the reader can look after other things.
        A thread of its own reads, as the server's signs of life keep a silent stream from timing out.
        """
        news: queue.Queue[tuple[str, JsonObject] | BaseException | None] = queue.Queue()
        threading.Thread(target=self._read_stream, args=(job_id, news), name="stream", daemon=True).start()
        while True:
            try:
                message = news.get(timeout=IDLE_SECONDS)
            except queue.Empty:
                yield "idle", {}
                continue
            if message is None:
                return
            if isinstance(message, BaseException):
                raise message
            yield message

    def _read_stream(self, job_id: str, news: queue.Queue[tuple[str, JsonObject] | BaseException | None]) -> None:
        try:
            for message in self._messages(job_id):
                news.put(message)
            news.put(None)
        except Exception as problem:  # noqa: BLE001  raised again where the stream is read
            news.put(problem)

    def _messages(self, job_id: str) -> Iterator[tuple[str, JsonObject]]:
        last_id = ""
        timeout = httpx2.Timeout(10.0, read=STREAM_SILENCE_SECONDS)
        while True:
            headers = {"Last-Event-ID": last_id} if last_id else {}
            try:
                with self._http.sse(f"/v1/jobs/{job_id}/stream", headers=headers, timeout=timeout) as stream:
                    if stream.response.status_code == 204:
                        return
                    if stream.response.is_error:
                        stream.response.read()
                        _content(stream.response)
                    for message in stream:
                        last_id = message.id or last_id
                        if message.event == "done":
                            return
                        yield message.event, json.loads(message.data or "{}")
            except httpx2.TransportError:
                time.sleep(IDLE_SECONDS)

    def _get(self, path: str) -> JsonObject:
        return _content(self._http.get(path))


def _content(answer: httpx2.Response) -> JsonObject:
    if answer.is_success:
        content: JsonObject = answer.json()
        return content
    try:
        problem = answer.json()
        text = " ".join(problem[part] for part in ("title", "detail", "hint") if problem.get(part))
        faults = [f"  {fault.get('pointer')}: {fault.get('message')}" for fault in problem.get("errors", [])]
    except (ValueError, AttributeError):
        text, faults = answer.text[:500], []
    raise Refused("\n".join([f"{answer.status_code} {text}", *faults]))
