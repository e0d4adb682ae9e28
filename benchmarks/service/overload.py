"""What an overloaded API gives: `python -m benchmarks.service.overload --before <checkout of an older commit>`.

Each checkout runs its own API as its containers start it, on a PostgreSQL of this machine. First 400 clients read one
job as fast as they get answers, each over a connection of its own; who is sent away with a 503 comes back when
`Retry-After` says so. Then 200 connections send the headers of a request byte by byte, while four clients go on.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx2

from benchmarks.data.machine import machine
from benchmarks.service.http import Answer, Connection
from benchmarks.service.trees import BEFORE, tree_of
from local.ports import free_port
from local.postgres import Postgres

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).with_name("results") / "overload.md"
CLIENTS, CLIENT_SECONDS = 400, 20.0
SLOW, SLOW_SECONDS, SLOW_READERS = 200, 30.0, 4
PROBE_SECONDS = 0.05
SPEC = {"task": "image-classification", "dataset": {"uri": "file:///data/pets/"}}


@dataclass
class Seen:
    """Latencies in seconds of the answers that were good, and how many were not, by status."""

    good: list[float] = field(default_factory=list)
    other: dict[str, int] = field(default_factory=dict)

    def note(self, answer: Answer | None, seconds: float) -> None:
        if answer is not None and answer.status == 200:
            self.good.append(seconds)
        else:
            name = str(answer.status) if answer is not None else "no answer"
            self.other[name] = self.other.get(name, 0) + 1

    def quantile(self, share: float) -> str:
        found = sorted(self.good)
        return f"{found[min(len(found) - 1, int(share * len(found)))] * 1000:,.0f} ms" if found else "none"

    def share_of(self, status: str) -> str:
        every = len(self.good) + sum(self.other.values())
        return f"{100 * self.other.get(status, 0) / max(1, every):.1f} %"


async def keep_reading(port: int, path: str, headers: str, until: float, seen: Seen, *, pause: float = 0.0) -> None:
    """One client, until the time is over."""
    connection = Connection(port)
    while time.monotonic() < until:
        began = time.monotonic()
        answer = None
        with suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
            answer = await asyncio.wait_for(connection.get(path, headers), until + 10 - began)
        seen.note(answer, time.monotonic() - began)
        if answer is None:
            await connection.close()
        wait = answer.retry_after if answer is not None and answer.status in (429, 503) else pause
        await asyncio.sleep(min(wait, max(0.0, until - time.monotonic())))
    await connection.close()


async def crowd(port: int, path: str, headers: str) -> tuple[Seen, Seen]:
    """What the clients saw, and what asking for /healthz meanwhile did."""
    until, seen, health = time.monotonic() + CLIENT_SECONDS, Seen(), Seen()
    clients = [keep_reading(port, path, headers, until, seen) for _ in range(CLIENTS)]
    await asyncio.gather(*clients, keep_reading(port, "/healthz", "", until, health, pause=PROBE_SECONDS))
    return seen, health


async def half_sent(port: int, until: float) -> float | None:
    """Seconds after which the server ended it; None where it had not by then."""
    began = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: here\r\nX-Slow: ")
    ended: asyncio.Future[bytes] = asyncio.ensure_future(reader.read(1))
    try:
        while time.monotonic() < until:
            done, _ = await asyncio.wait({ended}, timeout=1.0)
            if done:
                return time.monotonic() - began
            writer.write(b"a")
        return None
    except OSError:
        return time.monotonic() - began
    finally:
        ended.cancel()
        writer.close()


async def slow(port: int, path: str, headers: str) -> tuple[list[float | None], Seen]:
    until, seen = time.monotonic() + SLOW_SECONDS, Seen()
    attackers = asyncio.gather(*(half_sent(port, until) for _ in range(SLOW)))
    readers = [keep_reading(port, path, headers, until, seen, pause=0.02) for _ in range(SLOW_READERS)]
    await asyncio.gather(*readers)
    return await attackers, seen


@contextmanager
def api(checkout: Path, state: Path) -> Iterator[tuple[int, str]]:
    """The API of a checkout on a database of its own: its port, and a key."""
    server = Postgres(state, durable=False)
    server.start()
    port = free_port()
    environment = {
        **os.environ, "TRAINYARD_DATABASE_URL": server.url, "TRAINYARD_STORE": state.as_uri(),
        "TRAINYARD_RATE_REQUESTS": "0",  # one key is everybody here
    }  # fmt: skip
    ours = (checkout / "api" / "__main__.py").exists()
    if not ours:
        del environment["TRAINYARD_RATE_REQUESTS"]
    serve = ["api"] if ours else ["uvicorn", "--factory", "api.app:create_app", "--port", str(port)]
    environment |= {"TRAINYARD_PORT": str(port)}
    run = [sys.executable, "-m"]
    subprocess.run([*run, "alembic", "upgrade", "head"], cwd=checkout, env=environment, check=True, capture_output=True)
    key = subprocess.run(
        [*run, "api.keys", "create", "--project", "default", "--name", "crowd"], cwd=checkout, env=environment,
        check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip
    process = subprocess.Popen(
        [*run, *serve], cwd=checkout, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(600):
            with suppress(httpx2.TransportError):
                httpx2.get(f"http://127.0.0.1:{port}/healthz")
                break
            time.sleep(0.05)
        yield port, key
    finally:
        process.kill()
        process.wait()
        server.stop()


def measure(checkout: Path) -> list[str]:
    """One column of the table."""
    with tempfile.TemporaryDirectory(prefix="overload-") as folder:
        Path(folder).chmod(0o755)
        with api(checkout, Path(folder)) as (port, key):
            authorization = {"Authorization": f"Bearer {key}"}
            job = httpx2.post(f"http://127.0.0.1:{port}/v1/jobs", json=SPEC, headers=authorization).json()["id"]
            path, headers = f"/v1/jobs/{job}", f"Authorization: Bearer {key}\r\n"
            seen, health = asyncio.run(crowd(port, path, headers))
            closed, readers = asyncio.run(slow(port, path, headers))
    ends = sorted(seconds for seconds in closed if seconds is not None)
    return [
        f"{len(seen.good) / CLIENT_SECONDS:,.0f} a second", seen.quantile(0.5), seen.quantile(0.99),
        seen.share_of("503"), str({name: count for name, count in seen.other.items() if name != "503"} or "none"),
        health.quantile(0.99), str(health.other or "none"),
        f"{len(ends)} of {SLOW}" + (f", after {ends[0]:.1f} to {ends[-1]:.1f} s" if ends else ""),
        f"{len(readers.good) / SLOW_SECONDS:,.0f} a second, p99 {readers.quantile(0.99)}",
    ]  # fmt: skip


ROWS = [
    "400 clients: good answers", "p50 of good answers", "p99 of good answers", "share of 503", "anything else",
    "/healthz p99 meanwhile", "/healthz without a 200",
    f"200 connections that send headers by the byte: closed within {SLOW_SECONDS:.0f} s",
    "four clients that read meanwhile",
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", default=BEFORE, help="the commit to compare with")
    before = parser.parse_args().before
    with tempfile.TemporaryDirectory(prefix="trainyard-before-") as folder, tree_of(before, Path(folder)) as tree:
        columns = [measure(tree), measure(ROOT)]
    head = [
        "# Overload", "", f"`python -m benchmarks.service.overload` (before: {before}), {machine()};",
        "clients, API and PostgreSQL on it. Clients that get a 503 come back after its `Retry-After`.", "",
        "| | before | after |", "|---|---|---|",
    ]  # fmt: skip
    rows = [f"| {row} | {first} | {second} |" for row, first, second in zip(ROWS, *columns, strict=True)]
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text("\n".join([*head, *rows, ""]))
    sys.stdout.write(RESULTS.read_text())


if __name__ == "__main__":
    main()
