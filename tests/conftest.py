"""Real services for all tests: one PostgreSQL and one Valkey a session, a fresh database and an empty Valkey a test."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import psycopg
import pytest
import redis

from local import server_home
from local.postgres import Postgres
from local.valkey import Valkey

ROOT = Path(__file__).parents[1]
TEMPLATE = "trainyard_template"
_numbers = count(1)


@pytest.fixture(scope="session")
def services_dir() -> Iterator[Path]:
    """Short, and reachable by the user that PostgreSQL runs as when we are root."""
    directory = Path(tempfile.mkdtemp(prefix="trainyard-test-"))
    directory.chmod(0o755)
    yield directory
    server_home.remove(directory / "postgres")
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_url(services_dir: Path) -> Iterator[str]:
    """A server for the whole session; for a database of your own take `database_url`."""
    server = Postgres(services_dir, durable=False)
    server.start()
    yield server.url
    server.stop()


@pytest.fixture(scope="session")
def postgres_admin(postgres_url: str) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """In autocommit mode, so that it can create databases."""
    plain_url = postgres_url.replace("+psycopg", "").rsplit("/", 1)[0] + "/postgres"
    with psycopg.connect(plain_url, autocommit=True) as connection:
        yield connection


@pytest.fixture(scope="session")
def migrated_template(postgres_url: str, postgres_admin: psycopg.Connection[tuple[object, ...]]) -> str:
    """The name of a database with the schema that the migrations build; nobody connects to it."""
    postgres_admin.execute(f"CREATE DATABASE {TEMPLATE}")
    done = subprocess.run(
        [sys.executable, "-m", "alembic", "upgrade", "head"],
        cwd=ROOT,
        env={**os.environ, "TRAINYARD_DATABASE_URL": _database(postgres_url, TEMPLATE)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"the migrations failed:\n{done.stdout}{done.stderr}"
    return TEMPLATE


@pytest.fixture
def empty_database_url(postgres_url: str, postgres_admin: psycopg.Connection[tuple[object, ...]]) -> Iterator[str]:
    """A fresh database without any table, for the tests of the migrations themselves."""
    yield from _fresh_database(postgres_url, postgres_admin, "template1")


@pytest.fixture
def database_url(
    postgres_url: str, postgres_admin: psycopg.Connection[tuple[object, ...]], migrated_template: str
) -> Iterator[str]:
    """A fresh, migrated database for this test alone (SQLAlchemy URL, psycopg 3)."""
    yield from _fresh_database(postgres_url, postgres_admin, migrated_template)


def _fresh_database(url: str, admin: psycopg.Connection[tuple[object, ...]], template: str) -> Iterator[str]:
    name = f"test_{next(_numbers)}"
    admin.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    yield _database(url, name)
    admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


def _database(url: str, name: str) -> str:
    return url.rsplit("/", 1)[0] + f"/{name}"


@pytest.fixture(scope="session")
def valkey_session_server(services_dir: Path) -> Iterator[Valkey]:
    server = Valkey(services_dir, durable=False)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def valkey_server(valkey_session_server: Valkey) -> Iterator[Valkey]:
    """Running and empty. Its `url` outlives `stop()` or `kill()` followed by `start()`: outages are yours to make."""
    if not valkey_session_server.running:
        valkey_session_server.start()
    with redis.Redis.from_url(valkey_session_server.url) as client:
        client.flushall()
    yield valkey_session_server
    if not valkey_session_server.running:
        valkey_session_server.start()


@pytest.fixture
def redis_url(valkey_server: Valkey) -> str:
    return valkey_server.url


@pytest.fixture
def redis_client(redis_url: str) -> Iterator[redis.Redis]:
    """Answers are `str`."""
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client
