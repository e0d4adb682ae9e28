"""Eight hostile bodies of 0.9 MB at once: what others wait meanwhile, how long each takes, and the memory.

    python -m benchmarks.service.bodies [--before d586164] [--rounds 3]

A real PostgreSQL and a real uvicorn on this machine, of the commit `--before` and of this checkout in turn.
`/healthz` is asked every 10 ms by a process of its own, on one connection, from a second before the bodies are sent
until the last is answered, for which the client waits a minute. Memory is that of the API's process with all its
children, sampled every 20 ms.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import psutil

from benchmarks.data.machine import machine
from benchmarks.service.trees import BEFORE, Served, api, tree_of
from local.postgres import Postgres

RESULT = Path(__file__).parent / "results" / "bodies.md"
BYTES, AT_ONCE, PATIENCE_SECONDS = 900_000, 8, 60.0
SPEC: dict[str, Any] = {"task": "image-classification", "dataset": {"uri": "file:///data/pets/"}}
RATE = "training.optimizer.learning_rate"


def unknown_names() -> bytes:
    """As many as there is room for."""
    return _spec({f"datase{number}": 0 for number in range(BYTES // 16)})


def long_names() -> bytes:
    return _spec({"datase" + "t" * (BYTES // 2): 0, "trainin" + "g" * (BYTES // 2): 0})


def deep() -> bytes:
    return b'{"a":' * (BYTES // 6) + b"0" + b"}" * (BYTES // 6)


def many_values() -> bytes:
    return _spec({"exports": [0] * (BYTES // 3)})


def wrong_labels() -> bytes:
    """From here on nothing is refused for its size: as many faults as a body may have values."""
    return _spec({name: {f"- {number}": [] for number in range(999)} for name in ("labels", "metadata")})


def wrong_choices() -> bytes:
    parameter = {"type": "categorical", "choices": [[], {}] * 150}
    return _spec({"search": {"space": {f"a.b{number}": parameter for number in range(18)}}})


def wrong_points() -> bytes:
    point = {f"A{number}": [] for number in range(12)}
    return _spec({"search": {"space": {RATE: {"type": "float", "low": 0.1, "high": 1}}, "points": [point] * 400}})


def large_search() -> bytes:
    """Nothing is wrong with it: every choice of every parameter is tried in its field."""
    layer = {"type": "categorical", "choices": [choice / 1000 for choice in range(256)]}
    space = {f"training.optimizer.weight_decay_by_layer.layer{number}": layer for number in range(45)}
    return _spec({"search": {"space": space}})


def _spec(more: dict[str, Any]) -> bytes:
    """Filled up with blanks, which cost as much to send."""
    return json.dumps({**SPEC, **more}, separators=(",", ":")).encode().ljust(BYTES)


KINDS: list[Callable[[], bytes]] = [
    unknown_names, long_names, deep, many_values, wrong_labels, wrong_choices, wrong_points, large_search
]  # fmt: skip
PLAIN = json.dumps(SPEC).encode()


class Seen(NamedTuple):
    probes_ms: list[float]
    body_seconds: list[float]
    answer_bytes: int
    rss_mb: float
    statuses: dict[int, int]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", default=BEFORE)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--probe", nargs=2, help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    if wanted.probe:
        probe(*wanted.probe)
        return
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        folder.chmod(0o755)
        server = Postgres(folder, durable=False)
        server.start()
        try:
            seen = {
                name: measure(commit, name, server, folder, wanted.rounds)
                for name, commit in (("before", wanted.before), ("after", None))
            }
        finally:
            server.stop()
    table = written(seen, wanted.before, wanted.rounds)
    print(table)
    RESULT.write_text(table)


def measure(commit: str | None, name: str, server: Postgres, folder: Path, rounds: int) -> dict[str, Seen]:
    """By kind of body; `mixed` is one of each kind at once. `idle` has no bodies at all."""
    attacks = {"idle": [], "mixed": [kind() for kind in KINDS]} | {
        kind.__name__.replace("_", " "): [kind()] * AT_ONCE for kind in KINDS
    }
    with tree_of(commit, folder) as tree, api(tree, server, name, folder) as served:
        attack(served, [PLAIN], 1)  # the first request of a process pays for what all share
        return {kind: attack(served, bodies, rounds) for kind, bodies in attacks.items()}


def attack(served: Served, bodies: list[bytes], rounds: int) -> Seen:
    headers = {"Authorization": f"Bearer {served.key}", "Content-Type": "application/json"}
    stop, peak = threading.Event(), [0.0]
    watching = threading.Thread(target=_watch, args=(served.pid, stop, peak))
    watching.start()
    with tempfile.NamedTemporaryFile() as flag, httpx2.Client(headers=headers, timeout=PATIENCE_SECONDS) as client:
        prober = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.service.bodies", "--probe", served.url, flag.name],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        time.sleep(1.0)

        def post(body: bytes) -> tuple[float, int, int]:
            began = time.perf_counter()
            try:
                answer = client.post(f"{served.url}/v1/jobs?validate_only=true", content=body)
            except httpx2.TimeoutException:
                return PATIENCE_SECONDS, 0, 0
            return time.perf_counter() - began, answer.status_code, len(answer.content)

        took = []
        for _ in range(rounds):
            with ThreadPoolExecutor(AT_ONCE) as pool:
                took += list(pool.map(post, bodies))
        time.sleep(0.3)
        Path(flag.name).write_text("stop")
        probes = json.loads(prober.communicate()[0])
    stop.set()
    watching.join()
    statuses = {status: sum(one[1] == status for one in took) for status in sorted({one[1] for one in took})}
    seconds, sizes = [one[0] for one in took], [one[2] for one in took]
    return Seen(probes, seconds, max(sizes, default=0), peak[0], statuses)


def _watch(pid: int, stop: threading.Event, peak: list[float]) -> None:
    process = psutil.Process(pid)
    while not stop.wait(0.02):
        total = 0
        for one in [process, *process.children(recursive=True)]:
            try:
                total += one.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        peak[0] = max(peak[0], total / 1e6)


def probe(url: str, flag: str) -> None:
    """Milliseconds of each `/healthz`, as a list on stdout, until something is written into the flag."""
    found = []
    with httpx2.Client(base_url=url, timeout=600) as client:
        while not Path(flag).read_text():
            began = time.perf_counter()
            client.get("/healthz")
            found.append(1000 * (time.perf_counter() - began))
            time.sleep(0.01)
    print(json.dumps(found))


def written(seen: dict[str, dict[str, Seen]], before: str, rounds: int) -> str:
    lines = [
        f"# Eight hostile bodies at once (before: {before})",
        "",
        f"{machine()}. {AT_ONCE} bodies of up to {BYTES / 1e6} MB at once, {rounds} rounds of each kind. Milliseconds",
        "are those of `/healthz` meanwhile; seconds those of one body, from sending to answer; RSS that of the API",
        "with its children.",
        "",
        "| bodies | state | /healthz p50 ms | p99 ms | max ms | s a body, median | s, longest | answer, bytes "
        "| peak RSS MB | status |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for kind in seen["before"]:
        for state, by_kind in seen.items():
            lines.append(f"| {kind} | {state} | {_row(by_kind[kind])} |")
    return "\n".join([*lines, ""])


def _row(one: Seen) -> str:
    ordered = sorted(one.probes_ms)
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    took = one.body_seconds or [0.0]
    statuses = ", ".join(f"{status or 'none'} x {count}" for status, count in one.statuses.items())
    cells = [
        f"{statistics.median(ordered):.1f}", f"{p99:.1f}", f"{ordered[-1]:.1f}", f"{statistics.median(took):.2f}",
        f"{max(took):.2f}", f"{one.answer_bytes:,}", f"{one.rss_mb:.0f}", statuses or "-",
    ]  # fmt: skip
    return " | ".join(cells)


if __name__ == "__main__":
    main()
