"""All services of one machine: databases, migrations, an API key, api, control and one worker."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from local.client import Client
from local.ports import free_port
from local.postgres import Missing, Postgres
from local.processes import Child, Died, start, tail
from local.valkey import Valkey
from training_core.contract.sealing import new_key

ROOT = Path(__file__).parents[1]
WORKER_NAME = "local"
READY_SECONDS = 90.0


class Stack:
    """`start()` returns when a worker is online; `stop()` ends everything in reverse order and may be called always."""

    def __init__(self, state: Path, *, port: int | None, durable: bool, say: Callable[[str], None]) -> None:
        self.state = state
        self.say = say
        self.store = state / "store"
        self.logs = state / "logs"
        self.key_file = state / "api_key"
        self.env_file = state / "env"
        self.secrets_key_file = state / "secrets_key"
        self.url = f"http://127.0.0.1:{port or free_port()}"
        self._durable = durable
        self._servers: list[Postgres | Valkey] = []
        self._children: list[Child] = []

    def start(self) -> None:
        self.state.mkdir(mode=0o711, parents=True, exist_ok=True)  # as root, PostgreSQL's user must pass through
        for folder in (self.store, self.logs, self.state / "work", self.state / "cache"):
            folder.mkdir(mode=0o700, exist_ok=True)
        database_url, redis_url = self._database_url(), self._redis_url()
        book = {"TRAINYARD_DATABASE_URL": database_url}
        sealing = {"TRAINYARD_SECRETS_KEY": self._secrets_key()}
        self.say("Migrations")
        self._run("migrations", ["-m", "alembic", "upgrade", "head"], book)
        self.say("Services: api, control and one worker")
        common = {"TRAINYARD_STORE": self.store.as_uri()}
        port = self.url.rsplit(":", 1)[1]
        serving = {**book, **common, **sealing, "TRAINYARD_PORT": port, "TRAINYARD_PUBLIC_URL": self.url}
        self._start("api", ["-m", "api"], serving)
        self._start("control", ["-m", "api.control"], {**book, **common, "TRAINYARD_REDIS_URL": redis_url})
        worker = {**common, **sealing, **self._worker_settings(), "TRAINYARD_REDIS_URL": redis_url}
        self._start("worker", ["-m", "worker"], worker)
        self._wait_until_ready(book)
        self._write_env()

    def stop(self, patience_seconds: float | None = None) -> None:
        """The worker goes first; it hands in what it has, then the control plane, then the databases.

        `patience_seconds` cuts their time short where nobody will ask for what they would hand in.
        """
        while self._children:
            if patience_seconds is not None:
                self._children[-1].stop_seconds = patience_seconds
            self._children[-1].stop()
            self._children.pop()
        while self._servers:
            self._servers[-1].stop()
            self._servers.pop()

    def kill(self) -> None:
        """Without waiting for anybody."""
        for child in self._children:
            child.signal(9)

    def check(self) -> None:
        """Raises `Died` when one of them no longer runs."""
        for part in (*self._servers, *self._children):
            part.check()

    def key(self) -> str:
        return self.key_file.read_text().strip()

    def client(self) -> Client:
        return Client(self.url, self.key())

    def _secrets_key(self) -> str:
        """The one that seals the secrets of projects: as given, or made once and kept beside the API key."""
        if key := os.environ.get("TRAINYARD_SECRETS_KEY"):
            return key
        if not self.secrets_key_file.exists():
            unfinished = self.secrets_key_file.with_name(".secrets_key.unfinished")
            unfinished.touch(mode=0o600)
            unfinished.write_text(new_key() + "\n")
            unfinished.replace(self.secrets_key_file)
        return self.secrets_key_file.read_text().strip()

    def _database_url(self) -> str:
        if url := os.environ.get("TRAINYARD_DATABASE_URL"):
            self.say("PostgreSQL: the one in TRAINYARD_DATABASE_URL")
            scheme, _, rest = url.partition("://")
            return f"postgresql+psycopg://{rest}" if scheme in ("postgres", "postgresql") else url
        self.say("PostgreSQL")
        server = Postgres(self.state / "databases", durable=self._durable)
        self._servers.append(server)
        server.start()
        return server.url

    def _redis_url(self) -> str:
        if url := os.environ.get("TRAINYARD_REDIS_URL"):
            self.say("Redis: the one in TRAINYARD_REDIS_URL")
            return url
        self.say("Valkey")
        server = Valkey(self.state / "databases", durable=self._durable)
        self._servers.append(server)
        server.start()
        return server.url

    def _worker_settings(self) -> dict[str, str]:
        return {
            "TRAINYARD_WORK_DIR": str(self.state / "work"),
            "TRAINYARD_CACHE_DIR": str(self.state / "cache"),
            "TRAINYARD_DATA_ROOTS": data_roots(),
            "TRAINYARD_WORKER_NAME": os.environ.get("TRAINYARD_WORKER_NAME", WORKER_NAME),
        }

    def _start(self, name: str, arguments: list[str], settings: dict[str, str]) -> None:
        child = start(
            name,
            [sys.executable, *arguments],
            environment=_environment(settings),
            log=self.logs / f"{name}.log",
            directory=ROOT,
        )
        self._children.append(child)

    def _run(self, name: str, arguments: list[str], settings: dict[str, str]) -> None:
        """A step that ends by itself."""
        child = start(
            name,
            [sys.executable, *arguments],
            environment=_environment(settings),
            log=self.logs / f"{name}.log",
            directory=ROOT,
        )
        self._children.append(child)
        try:
            code = child.popen.wait(READY_SECONDS)
        except subprocess.TimeoutExpired:
            code = None
        if code != 0:
            raise Died(f"{name} failed (exit code {code}); the end of {child.log}:\n{tail(child.log)}")
        self._children.pop()

    def _ensure_key(self, book: dict[str, str]) -> None:
        """Clients of `up` keep theirs as long as the book knows it; a new one takes a free name and revokes nothing."""
        arguments = ["-m", "api.keys", "ensure", "--project", "default", "--name", "local", "--file"]
        done = subprocess.run(
            [sys.executable, *arguments, str(self.key_file)],
            cwd=ROOT,
            env=_environment(book),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        if done.returncode:
            raise Died(f"No API key could be made:\n{done.stderr}")

    def _write_env(self) -> None:
        """What `source` sets for the commands of README and docs: the address and the key."""
        unfinished = self.env_file.with_name(".env.unfinished")
        unfinished.touch(mode=0o600)
        unfinished.write_text(f"export URL={self.url}\nexport KEY={self.key()}\n")
        unfinished.replace(self.env_file)

    def _wait_until_ready(self, book: dict[str, str]) -> None:
        deadline = time.monotonic() + READY_SECONDS
        if not self.key_file.exists():
            self._ensure_key(book)
        self._wait_for("The API is not ready", Client.ready, deadline)
        with self.client() as client:
            known = client.authenticated()
        if not known:
            self._ensure_key(book)
        self._wait_for("No worker is online", Client.worker_online, deadline)

    def _wait_for(self, complaint: str, condition: Callable[[Client], bool], deadline: float) -> None:
        with self.client() as client:
            while not condition(client):
                self.check()
                if time.monotonic() > deadline:
                    raise Died(f"{complaint} after {READY_SECONDS:.0f} s; the logs are in {self.logs}")
                time.sleep(0.05)


def data_roots() -> str:
    """What `file://` may read: this checkout, then the folders of `make up DATA=…`, separated like PATH.

    TRAINYARD_DATA_ROOTS takes the place of all of them.
    """
    asked = [folder for folder in os.environ.get("TRAINYARD_DATA", "").split(os.pathsep) if folder]
    for folder in asked:
        if not Path(folder).is_dir():
            raise Missing(f"DATA: there is no folder {folder}")
    ours = os.pathsep.join([str(ROOT), *(str(Path(folder).resolve()) for folder in asked)])
    return os.environ.get("TRAINYARD_DATA_ROOTS", ours)


def _environment(settings: dict[str, str]) -> dict[str, str]:
    """Ours without any secret, plus what this one process needs."""
    secret = {"TRAINYARD_DATABASE_URL", "TRAINYARD_REDIS_URL", "TRAINYARD_SECRETS_KEY"}
    inherited = {name: value for name, value in os.environ.items() if name not in secret and not name.startswith("PG")}
    return {**inherited, "PYTHONUNBUFFERED": "1", **settings}
