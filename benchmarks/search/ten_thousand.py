"""A search with 10,000 finished trials: how long each of its answers takes over HTTP.

    python -m benchmarks.search.ten_thousand [--trials 10000] [--turns 30] [--quick]

A real PostgreSQL and a real uvicorn on this machine, one client, every route in turn. Two books of five parameters: one
as successive halving leaves it (one trial in ten came to its end), and one whose trials all came to their end, with two
objectives, where each answer about all trials is longest. The floor is a request that reads one row.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import psutil
import psycopg
from sqlalchemy import text
from sqlalchemy.orm import Session

from api.book.database import make_engine, make_sessions
from api.book.models import Job, Project
from api.keys import create_key
from api.settings import Settings
from benchmarks.data.machine import machine
from local.ports import free_port
from local.postgres import Postgres
from training_core.contract.spec import JobSpec

ROOT = Path(__file__).parents[2]
RESULT = Path(__file__).parent / "results" / "ten_thousand.md"
LIMIT_SECONDS = 0.2
ACCURACY = "validation/accuracy"
SPACE: dict[str, Any] = {
    "training.optimizer.learning_rate": {"type": "float", "low": 1e-4, "high": 1.0, "log": True},
    "training.optimizer.weight_decay": {"type": "float", "low": 0.0, "high": 0.1},
    "training.label_smoothing": {"type": "float", "low": 0.0, "high": 0.3},
    "training.batch_size": {"type": "int", "low": 16, "high": 512, "log": True},
    "training.optimizer.name": {"type": "categorical", "choices": ["sgd", "adam", "adamw"]},
}
FILL = Path(__file__).with_suffix(".sql")
Found = dict[str, dict[str, list["Took"]]]  # by route and book
BOOKS = {"halving": 10, "all complete": 1}  # one trial in so many came to its end


class Took(NamedTuple):
    """`cpu_seconds` are those of the API's process and of PostgreSQL's together, which no neighbour makes longer."""

    seconds: float
    cpu_seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--turns", type=int, default=30)
    parser.add_argument("--quick", action="store_true", help="500 trials, three turns; writes no file")
    wanted = parser.parse_args()
    if wanted.quick:
        wanted.trials, wanted.turns = 500, 3
    table = measure(wanted.trials, wanted.turns)
    print(table)
    if not wanted.quick:
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(table)


def measure(trials: int, turns: int) -> str:
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder)
        state.chmod(0o755)
        server = Postgres(state, durable=False)
        server.start()
        try:
            jobs, key = fill(server.url, state, trials)
            with api(server.url, state) as (url, process):
                servers = [psutil.Process(process), psutil.Process(postmaster(state))]
                return show(trials, turns, ask_all(url, key, jobs, turns, servers))
        finally:
            server.stop()


def postmaster(state: Path) -> int:
    return int(next(state.rglob("postmaster.pid")).read_text().splitlines()[0])


def fill(url: str, state: Path, trials: int) -> tuple[dict[str, str], str]:
    """The ids of the searches by their names, and an API key."""
    environment = {**os.environ, "TRAINYARD_DATABASE_URL": url}
    subprocess.run([sys.executable, "-m", "alembic", "upgrade", "head"], cwd=ROOT, env=environment, check=True)
    settings = Settings(database_url=url, store=state.as_uri())  # type: ignore[arg-type]  a text becomes a secret
    engine = make_engine(settings, "benchmark")
    sessions = make_sessions(engine)
    with sessions.begin() as session:
        key = create_key(session, "default", "benchmark")
    with sessions.begin() as session:
        jobs = {name: add_search(session, name, trials, every) for name, every in BOOKS.items()}
    engine.dispose()
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")
    return jobs, key


def add_search(session: Session, name: str, trials: int, every: int) -> str:
    """Reports are as long as real ones: a plan, a result and an account together about six thousand characters."""
    objective: Any = {"metric": ACCURACY} if every > 1 else [{"metric": ACCURACY}, {"metric": "device_seconds"}]
    search = {"space": SPACE, "trials": trials, "objective": objective, "pruner": "halving" if every > 1 else "none"}
    spec = JobSpec.model_validate(
        {"task": "image-classification", "dataset": {"uri": "file:///data/x/"}, "search": search}
    )
    job_id = f"job_{name.replace(' ', '').upper():0<26}"[:30]
    project = session.query(Project).one()
    study = {"trials": trials, "counts": {"succeeded": trials}, "parallel": 4, "share": 0.25, "warnings": [],
             "best": {"trial": 0, "values": {ACCURACY: 0.9}, "parameters": {}, "checkpoint": None}}  # fmt: skip
    session.add(
        Job(
            id=job_id, project_id=project.id, spec=spec.model_dump(mode="json"), spec_version=1, priority=0, labels={},
            client_metadata={}, status="succeeded", reason="completed", finished_at=datetime.now(UTC), study=study,
            last_event_seq=3 * trials,
        )
    )  # fmt: skip
    session.flush()
    words = {f"training.field_{number}": "as requested by the client" for number in range(40)}
    report = {"step": 500, "final": True, "account": {"words": words}}
    progress = {"fraction": 1, "epoch": 5, "step": 500, "eta_seconds": 0, "images_per_second": 5000}
    facts = {"job": job_id, "trials": trials, "every": every}
    for statement in FILL.read_text().split(";\n"):
        if statement.strip():
            told = {**facts, "progress": json.dumps(progress), "report": json.dumps(report)}
            session.execute(text(statement), {name: told[name] for name in told if f":{name}" in statement})
    return job_id


@contextmanager
def api(url: str, state: Path) -> Iterator[tuple[str, int]]:
    """A uvicorn of its own: where it answers, and its process."""
    port = free_port()
    environment = {
        **os.environ, "TRAINYARD_DATABASE_URL": url, "TRAINYARD_STORE": state.as_uri(), "TRAINYARD_PORT": str(port),
        "TRAINYARD_RATE_REQUESTS": "0",
    }  # fmt: skip
    server = subprocess.Popen([sys.executable, "-m", "api"], cwd=ROOT, env=environment)
    try:
        for _ in range(600):
            try:
                httpx2.get(f"http://127.0.0.1:{port}/healthz")
                break
            except httpx2.TransportError:
                time.sleep(0.05)
        yield f"http://127.0.0.1:{port}", server.pid
    finally:
        server.terminate()
        server.wait()


def routes(client: httpx2.Client, job_id: str) -> dict[str, str]:
    """By what stands in the table; pages from the middle need the cursor of the page before."""
    base = f"/v1/jobs/{job_id}"
    middle = {}
    for name, sort in (("number", "number"), ("value", "-value"), ("a parameter", "training.optimizer.learning_rate")):
        first = client.get(f"{base}/trials?limit=100&sort={sort}").json()
        middle[f"list, 100 behind the first 100, by {name}"] = (
            f"{base}/trials?limit=100&sort={sort}&after={first['next_cursor']}"
        )
    return {
        "floor: one row (a checkpoint)": f"{base}/checkpoints/ckpt_{job_id}_0",
        "job": base,
        "list, first 20": f"{base}/trials",
        **middle,
        "list, 100 with three filters": f"{base}/trials?limit=100&status=succeeded&min=value:0.5&max=value:0.9",
        "one trial": f"{base}/trials/10",
        "best": f"{base}/trials/best",
        "importance": f"{base}/trials/importance",
        "Pareto front": f"{base}/trials/pareto",
        "history": f"{base}/trials/history",
        "parallel coordinates": f"{base}/trials/parallel_coordinates",
        "efficiency": f"{base}/efficiency",
        "events, the last 100": f"{base}/events?after=900",
        "curves of four trials": f"{base}/metrics?trials=0,10,20,30",
        "journal, whole (no figure)": f"{base}/trials/journal",
    }


def cpu_seconds(servers: list[psutil.Process]) -> float:
    times = [server.cpu_times() for server in servers]
    return sum(one.user + one.system for one in times)


def ask_all(url: str, key: str, jobs: dict[str, str], turns: int, servers: list[psutil.Process]) -> Found:
    """The first turn of each counts too: nothing is kept between two requests."""
    found: Found = {}
    with httpx2.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=60) as client:
        asked = {name: routes(client, job_id) for name, job_id in jobs.items()}
        with_children = [one for server in servers for one in (server, *server.children(recursive=True))]
        for turn in range(turns):
            for book, paths in asked.items():
                for name, path in paths.items():
                    if turn and "no figure" in name:
                        continue  # once is enough
                    begun, used = time.perf_counter(), cpu_seconds(with_children)
                    answer = client.get(path)
                    took = Took(time.perf_counter() - begun, cpu_seconds(with_children) - used)
                    assert answer.status_code == 200, (path, answer.text)
                    found.setdefault(name, {}).setdefault(book, []).append(took)
    return found


def judged(books: dict[str, list[Took]]) -> str:
    busy = os.getloadavg()[0] > 2 * len(os.sched_getaffinity(0))
    rank = (lambda one: one.cpu_seconds) if busy else (lambda one: one.seconds)
    middle = statistics.mean if busy else statistics.median
    met = all(middle(rank(one) for one in books[book]) < LIMIT_SECONDS for book in BOOKS)
    return ("met" if met else "**missed**") + (" by CPU time" if busy else "")


def show(trials: int, turns: int, found: Found) -> str:
    lines = [
        f"# Answers about {trials:,} finished trials",
        "",
        f"`python -m benchmarks.search.ten_thousand --trials {trials} --turns {turns}` on {machine()},"
        f" {datetime.now(UTC):%Y-%m-%d}; {turns} turns, one client, load average {os.getloadavg()[0]:.1f} at the end."
        f" Milliseconds over HTTP, nothing cached; CPU is the mean of API and PostgreSQL together, in steps of 10 ms."
        f" The figure is a median below {1000 * LIMIT_SECONDS:.0f} ms in both books; on a machine that has more to do"
        f" than it has cores, where no median says anything, the CPU time is judged in its place, as the row says.",
        "",
        "| answer | " + " | ".join(f"{book}: median | worst | CPU" for book in BOOKS) + " | figure |",
        "|---|" + "---:|---:|---:|" * len(BOOKS) + "---|",
    ]
    for name, books in found.items():
        seconds = {book: [one.seconds for one in books[book]] for book in BOOKS}
        met = judged(books)
        cells = [
            f"{1000 * number:.1f}"
            for book in BOOKS
            for number in (
                statistics.median(seconds[book]),
                max(seconds[book]),
                statistics.mean(one.cpu_seconds for one in books[book]),
            )
        ]
        figure = "" if "no figure" in name or "floor" in name else met
        lines.append(f"| {name} | {' | '.join(cells)} | {figure} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
