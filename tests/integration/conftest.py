"""A live API on a fresh database, and the control loops on hand to be stepped one pass at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

import httpx2
import pytest
import redis
from pydantic import SecretStr
from sqlalchemy import select

from api.app import create_app
from api.book.database import Sessions, make_engine, make_sessions
from api.book.models import Attempt
from api.book.scopes import ROLES
from api.control.broker import Postman, make_redis
from api.control.dispatcher import Dispatcher
from api.control.janitor import Janitor
from api.control.recorder import Recorder
from api.keys import create_key
from api.profiles import Profiles
from api.server import make_server
from api.settings import Settings
from local.ports import free_port
from tests.waiting import eventually
from training_core.contract import reports
from training_core.contract.messages import RECORDED_HASH, REPORTS_STREAM, WORKERS_HASH, Heartbeat
from training_core.contract.sealing import new_key

_numbers = count(1)
SECRETS_KEY = new_key()
SPEC: dict[str, Any] = {"task": "image-classification", "dataset": {"uri": "file:///data/pets/"}}


@pytest.fixture
def settings(database_url: str, redis_url: str, tmp_path: Path) -> Settings:
    return Settings(
        database_url=database_url,
        redis_url=redis_url,
        store=tmp_path.as_uri(),
        worker_suspected_seconds=0.4,
        worker_lost_seconds=0.8,
        claim_seconds=0.2,
        rate_requests=0,
        rate_guesses=0,
        secrets_key=SecretStr(SECRETS_KEY),
    )


@pytest.fixture
def sessions(settings: Settings) -> Iterator[Sessions]:
    engine = make_engine(settings, "test")
    yield make_sessions(engine)
    engine.dispose()


@pytest.fixture
def keys(sessions: Sessions) -> Callable[..., str]:
    """Makes a key of a project: an administrator's, unless scopes are given."""

    def key(project: str, scopes: Collection[str] = ROLES["admin"], expires_at: datetime | None = None) -> str:
        with sessions.begin() as session:
            return create_key(session, project, f"test-{next(_numbers)}", scopes, expires_at)

    return key


@contextmanager
def serving(settings: Settings, **options: Any) -> Iterator[str]:
    """The URL of a real uvicorn in a thread, which ends within its grace time. `options` are of `uvicorn.Config`."""
    port = free_port()
    quick = settings.model_copy(update={"drain_seconds": 2})
    server = make_server(create_app(quick), quick, port=port, log_level="warning", **options)
    thread = threading.Thread(target=server.run)
    thread.start()
    eventually(lambda: server.started)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture
def api_url(settings: Settings) -> Iterator[str]:
    with serving(settings) as url:
        yield url


@pytest.fixture
def client(api_url: str, keys: Callable[..., str]) -> Iterator[httpx2.Client]:
    headers = {"Authorization": f"Bearer {keys('default')}"}
    with httpx2.Client(base_url=api_url, headers=headers, timeout=20) as client:
        yield client


@dataclass
class Control:
    """The three loops, stepped by the test, and a host that speaks the worker's side of the wire."""

    sessions: Sessions
    redis: redis.Redis
    dispatcher: Dispatcher
    recorder: Recorder
    janitor: Janitor
    beat: int = 0

    def heartbeat(
        self, *attempts: str, worker: str = "host-a", incarnation: str = "one", slots: int = 1, draining: bool = False,
        **more: Any,
    ) -> None:  # fmt: skip
        self.beat += 1
        facts = {
            "worker": worker, "incarnation": incarnation, "beat": self.beat, "host": worker, "device": "cpu",
            "device_name": "CPU", "slots": slots, "cores": 2, "memory_bytes": 1 << 30, "draining": draining,
            "attempts": list(attempts), "version": "0", "readable": {"*": ["/"]},
        }  # fmt: skip
        beat = Heartbeat.model_validate(facts | more)
        self.redis.hset(WORKERS_HASH, worker, beat.model_dump_json())
        self.janitor.look()

    def attempts(self) -> list[Attempt]:
        with self.sessions() as session:
            return list(session.scalars(select(Attempt).order_by(Attempt.booked_at)))

    def report(self, attempt: Attempt, *lines: reports.Report, first: int | None = None, record: bool = True) -> None:
        """Send reports numbered behind the attempt's last one, and record them."""
        seq = first or self.attempts_last_seq(attempt) + 1
        for number, line in enumerate(lines, seq):
            text = line.model_copy(update={"seq": number, "at": 1_764_000_000.0 + number}).model_dump_json()
            fields = {"attempt": attempt.id, "job": attempt.job_id, "line": text}
            self.redis.xadd(REPORTS_STREAM, fields)  # type: ignore[arg-type]
        if record:
            self.recorder.record_batch()

    def attempts_last_seq(self, attempt: Attempt) -> int:
        return int(self.redis.hget(RECORDED_HASH, attempt.id) or 0)  # type: ignore[arg-type]


@pytest.fixture
def control(settings: Settings, sessions: Sessions) -> Iterator[Control]:
    with ExitStack() as stack:
        client = stack.enter_context(make_redis(settings))
        postman = Postman(settings)
        stack.callback(postman.close)
        yield Control(
            sessions,
            client,
            Dispatcher(sessions, client, postman, Profiles.load(settings.profiles_file), settings),
            Recorder(sessions, client, settings.losses_limit),
            Janitor(sessions, client, settings),
        )
