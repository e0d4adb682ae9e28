"""A live API on a real PostgreSQL, with something behind every kind of id, to be sent anything."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx2

from api.book import keys
from api.book.database import Sessions, make_engine, make_sessions
from api.book.scopes import ROLES
from api.settings import Settings
from local.ports import free_port
from local.postgres import Postgres
from tests.integration import access_objects as made
from tests.integration.access_objects import World
from tests.waiting import eventually
from training_core.contract.sealing import new_key

ROOT = Path(__file__).parents[2]
PROJECT = "fuzz"
MAKERS = (
    made.a_job, made.a_running_job, made.a_queued_job, made.a_paused_job, made.a_search, made.a_check,
    made.a_checkpoint, made.an_artifact, made.a_key,
)  # fmt: skip
# A wait may be asked for by many requests, and each holds a line for so long. Limits would answer in place of routes.
SETTINGS = {"wait_limit_seconds": 0.2, "rate_requests": 0, "rate_guesses": 0}


class Target(NamedTuple):
    url: str
    key: str
    pools: dict[str, list[str]]


@contextmanager
def live() -> Iterator[Target]:
    """A uvicorn of its own, with a fresh database."""
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        folder.chmod(0o755)
        server = Postgres(folder, durable=False)
        server.start()
        own = {f"TRAINYARD_{name.upper()}": str(value) for name, value in SETTINGS.items()}
        environment = {**os.environ, **own, "TRAINYARD_DATABASE_URL": server.url}
        environment["TRAINYARD_SECRETS_KEY"] = new_key()
        environment["TRAINYARD_STORE"] = folder.as_uri()
        subprocess.run(
            [sys.executable, "-m", "alembic", "upgrade", "head"],
            cwd=ROOT,
            env=environment,
            check=True,
            stderr=subprocess.DEVNULL,
        )
        port = str(free_port())
        command = [sys.executable, "-m", "uvicorn", "--factory", "api.app:create_app", "--port", port]
        process = subprocess.Popen([*command, "--log-level", "error"], cwd=ROOT, env=environment)
        try:
            engine = make_engine(Settings(database_url=server.url), "fuzz")  # type: ignore[arg-type]
            key, pools = furnish(make_sessions(engine), folder)
            engine.dispose()
            url = f"http://127.0.0.1:{port}"
            eventually(lambda: _answers(url), timeout=60)
            yield Target(url, key, pools)
        finally:
            process.terminate()
            process.wait(30)
            server.stop()


def furnish(sessions: Sessions, store: Path) -> tuple[str, dict[str, list[str]]]:
    """An operator's key, and ids by the name of their path parameter, one of each thing that can be."""
    with sessions.begin() as session:
        project = keys.make_project(session, PROJECT)
        _, key = keys.make(session, project.id, "fuzz", ROLES["operator"])
        world = World(sessions, store, project.id)
    pools: dict[str, list[str]] = {}
    for make in MAKERS:
        for name, text in make(world).items():
            pools.setdefault(name, []).append(text)
    return key, pools


def _answers(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/healthz").status_code == 200
    except httpx2.TransportError:
        return False
