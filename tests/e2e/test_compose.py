"""The containers as docs/deploy.md starts them, from images built of this checkout, where there is a Docker."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from local.ports import free_port
from tests.docs.commands import of_page, script
from tests.waiting import eventually

ROOT = Path(__file__).parents[2]
PROJECT = "trainyard-test"
BUILD_SECONDS = 900
END_SECONDS = 180


def compose_command() -> list[str]:
    """`docker compose`, or the program of its own that Debian has."""
    docker = shutil.which("docker")
    if docker and subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode == 0:
        return [docker, "compose"]
    return [shutil.which("docker-compose") or "docker-compose"]


pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(BUILD_SECONDS + 2 * END_SECONDS),
    pytest.mark.skipif(
        not shutil.which("docker") or subprocess.run(["docker", "info"], capture_output=True, check=False).returncode,
        reason="there is no Docker here",
    ),
]

Compose = Callable[..., str]


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def compose(port: int) -> Iterator[Compose]:
    """Runs one command of compose on the project, which is up; afterwards nothing of it is left."""
    subprocess.run(["make", "secrets"], cwd=ROOT, check=True, capture_output=True)
    environment = {**os.environ, "TRAINYARD_PORT": str(port), "DOCKER_BUILDKIT": "0", "WORKER_MEMORY": "6g"}

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [*compose_command(), "-p", PROJECT, *arguments], cwd=ROOT, env=environment,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    try:
        run("build")
        run("up", "-d")
        yield run
    finally:
        run("down", "-v", "-t", "5")


@pytest.fixture(scope="module")
def client(compose: Compose, port: int) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False) as client:
        eventually(lambda: _answers(client), 90, 0.5)
        key = compose("exec", "-T", "api", "python", "-m", "api.keys", "create", "--name", "test").strip()
        client.headers["Authorization"] = f"Bearer {key}"
        yield client


def _answers(client: httpx2.Client) -> bool:
    try:
        return client.get("/readyz").status_code == 200
    except httpx2.TransportError:
        return False


def test_a_job_trains_in_the_containers(client: httpx2.Client) -> None:
    spec = json.loads((ROOT / "examples/fashion-mnist.json").read_text())
    submitted = client.post("/v1/jobs", json=spec)
    assert submitted.status_code == 202, submitted.text

    def ended() -> dict[str, Any] | None:
        job: dict[str, Any] = client.get(f"/v1/jobs/{submitted.json()['id']}").json()
        return job if job["terminal"] else None

    job = eventually(ended, END_SECONDS, 1)
    assert job["status"] == "succeeded", job["error"]


def test_a_backend_works_as_the_page_says(client: httpx2.Client, tmp_path: Path) -> None:
    """All blocks of docs/integrate.md between the service's start and the folder of one's own."""
    page = (ROOT / "docs/integrate.md").read_text().partition("## Your own pictures")[0]
    commands = [command for command in of_page(page) if command.language != "console"]
    known = {"URL": str(client.base_url), "KEY": client.headers["Authorization"].removeprefix("Bearer ")}
    done = subprocess.run(
        ["bash", "-s"], input=script(commands), cwd=tmp_path, env={**os.environ, **known},
        capture_output=True, text=True, check=False, timeout=END_SECONDS,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


def test_no_container_of_ours_is_root_or_can_write_its_own_files(compose: Compose, client: httpx2.Client) -> None:
    for service in ("api", "control", "worker"):
        assert compose("exec", "-T", service, "id", "-u").strip() == "10001"
        written = "try:\n open('/app/x', 'w')\nexcept OSError as error:\n print(error.errno)"
        assert compose("exec", "-T", service, "python", "-c", written).strip() in ("13", "30")
        rights = compose("exec", "-T", service, "grep", "CapEff", "/proc/self/status")
        assert int(rights.split()[1], 16) == 0


def test_valkey_answers_nobody_without_the_password(compose: Compose) -> None:
    said = compose("exec", "-T", "valkey", "sh", "-c", "REDISCLI_AUTH= valkey-cli ping || true")
    assert "NOAUTH" in said


def test_the_worker_cannot_reach_the_database(compose: Compose) -> None:
    look = "import socket\ntry:\n socket.getaddrinfo('postgres', 1)\n print('found')\nexcept OSError:\n print('no')"
    assert compose("exec", "-T", "worker", "python", "-c", look).strip() == "no"
