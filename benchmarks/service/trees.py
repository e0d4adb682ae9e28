"""Two states of the code side by side: the API of any commit, on a database that its own migrations built."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx2
import psycopg

from local.ports import free_port
from local.postgres import Postgres

ROOT = Path(__file__).parents[2]
BEFORE = "d586164"


class Served(NamedTuple):
    url: str
    key: str
    pid: int


@contextmanager
def tree_of(commit: str | None, folder: Path) -> Iterator[Path]:
    """The files of a commit below `folder`, or this checkout for None."""
    if commit is None:
        yield ROOT
        return
    tree = folder / commit
    subprocess.run(["git", "worktree", "add", "-q", "--detach", str(tree), commit], cwd=ROOT, check=True)
    try:
        yield tree
    finally:
        subprocess.run(["git", "worktree", "remove", "--force", str(tree)], cwd=ROOT, check=True)


@contextmanager
def api(tree: Path, server: Postgres, name: str, folder: Path, **settings: str) -> Iterator[Served]:
    """A uvicorn on the tree's own code, with a fresh database and a key."""
    admin = server.url.replace("+psycopg", "").rsplit("/", 1)[0]
    with psycopg.connect(f"{admin}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    environment = {
        **os.environ,
        "TRAINYARD_DATABASE_URL": f"{server.url.rsplit('/', 1)[0]}/{name}",
        "TRAINYARD_STORE": folder.as_uri(),
        **settings,
    }

    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", *arguments]
        done = subprocess.run(command, cwd=tree, env=environment, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    run("alembic", "upgrade", "head")
    key = run("api.keys", "create", "--name", "benchmark").split()[-1]
    port = str(free_port())
    command = [sys.executable, "-m", "uvicorn", "--factory", "api.app:create_app", "--port", port]
    process = subprocess.Popen([*command, "--log-level", "warning"], cwd=tree, env=environment)
    try:
        url = f"http://127.0.0.1:{port}"
        _await(url)
        yield Served(url, key, process.pid)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await(url: str) -> None:
    for _ in range(600):
        try:
            httpx2.get(f"{url}/healthz")
        except httpx2.TransportError:
            time.sleep(0.05)
        else:
            return
    raise TimeoutError(f"{url} did not come up")
