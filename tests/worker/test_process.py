"""The real worker process: heartbeat, a ticket through Celery, SIGTERM, SIGKILL."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from celery import Celery

from tests.waiting import eventually
from tests.worker.conftest import Book
from training_core.contract.messages import TASK_RUN_ATTEMPT, WORKERS_HASH, Heartbeat, Ticket, host_queue
from training_core.contract.spec import JobSpec
from worker.settings import Settings

STARTER = """
import sys
import worker.host
program = (sys.executable, sys.argv[1])
worker.host.Host.__init__.__defaults__ = (program,)
from worker.__main__ import main
main()
"""


@pytest.fixture
def worker(settings: Settings, program: tuple[str, ...], tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    environment = {
        **os.environ,
        "TRAINYARD_REDIS_URL": settings.redis_url.get_secret_value(),
        "TRAINYARD_STORE": settings.store,
        "TRAINYARD_WORKER_NAME": "host-a",
        "TRAINYARD_WORK_DIR": str(settings.work_dir),
        "TRAINYARD_CACHE_DIR": str(settings.cache_dir),
        "TRAINYARD_DEVICE": "cpu",
        "TRAINYARD_WARM_LAUNCHER": "0",
        "PYTHONPATH": os.getcwd(),
    }
    with (tmp_path / "worker.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", STARTER, program[1]], env=environment, stdout=log, stderr=subprocess.STDOUT
        )
    yield process
    process.kill()
    process.wait()


def beat_of(client: redis.Redis) -> Heartbeat | None:
    value = client.hget(WORKERS_HASH, "host-a")
    return Heartbeat.model_validate_json(str(value)) if value else None


def send(settings: Settings, ticket: Ticket) -> None:
    with Celery(broker=settings.redis_url.get_secret_value(), set_as_current=False) as app:
        app.send_task(
            TASK_RUN_ATTEMPT, [ticket.model_dump(mode="json")], queue=host_queue("host-a"), ignore_result=True
        )


def obedient(beat: Heartbeat) -> Ticket:
    spec = JobSpec.model_validate({"name": "obey", "task": "image-classification", "dataset": {"uri": "file:///x"}})
    return Ticket(
        attempt_id="att_1", job_id="job_1", attempt=1, spec=spec, device="cpu", devices=1, incarnation=beat.incarnation
    )


def test_sigterm_hands_the_attempt_back_and_ends_cleanly(
    worker: subprocess.Popen[bytes], settings: Settings, redis_client: redis.Redis, book: Book
) -> None:
    beat = eventually(lambda: beat_of(redis_client), 30)
    assert (beat.slots, beat.attempts, beat.draining) == (1, [], False)
    send(settings, obedient(beat))
    eventually(lambda: (now := beat_of(redis_client)) and now.attempts == ["att_1"], 20)
    eventually(lambda: book.record() or len(book.lines.get("att_1", ())) > 5, 20)
    worker.send_signal(signal.SIGTERM)
    finished = eventually(lambda: book.finished("att_1"), 20)
    assert finished["reason"] == "worker_shutdown"
    assert worker.wait(timeout=20) == 0
    assert beat_of(redis_client) is None


def test_settings_that_are_lists_and_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINYARD_REDIS_URL", "redis://nowhere")
    monkeypatch.setenv("TRAINYARD_STORE", "file:///store")
    monkeypatch.setenv("TRAINYARD_ALLOWED_URIS", "s3://pets/, https://images.example.org/")
    monkeypatch.setenv("TRAINYARD_CACHE_BYTES", "1000000")
    settings = Settings()
    assert settings.allowed_uris == ["s3://pets/", "https://images.example.org/"]
    assert settings.cache_bytes == 1000000
    assert settings.warm_launcher


def test_the_worker_imports_no_torch() -> None:
    code = "import sys, worker.__main__; print([m for m in ('torch', 'sqlalchemy', 'fastapi') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
