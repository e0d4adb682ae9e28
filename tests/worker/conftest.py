"""A host on a real Valkey, with a small real program in the training's place where a test is about the worker alone."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from training_core.spec import JobSpec
from training_core.wire import RECORDED_HASH, REPORTS_STREAM, Ticket
from worker.host import Host
from worker.settings import Settings

# Trains nothing, but speaks through the run dir as a training does: reports, obeys the stop file, writes an outcome.
PROGRAM = """
import json, os, sys, time
from pathlib import Path
from training_core.events import Metric, Started
from training_core.rundir import EventsFile, Outcome, RunDir
run = RunDir(Path(sys.argv[1]))
mode = run.read_spec().spec.name
(run.path / "environment.json").write_text(json.dumps(dict(os.environ)))
with EventsFile(run.events) as events:
    events.append(Started())
    if mode == "complete":
        for step in range(1, 501):
            events.append(Metric(step=step, epoch=step / 100, values={"train/loss": 1 / step}))
        run.write_outcome(Outcome(result="completed", phase="running"))
        sys.exit(0)
    if mode == "die":
        print("password=hunter2 the end", flush=True)
        os.kill(os.getpid(), 9)
    while mode == "silent":
        time.sleep(1)
    step = 0
    while mode == "deaf" or not run.stop_requested():
        step += 1
        events.append(Metric(step=step, epoch=0, values={"train/loss": 1.0}))
        time.sleep(0.01)  # the pace of a training step
    run.write_outcome(Outcome(result="stopped", phase="running", step=step))
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return (sys.executable, str(path))


@pytest.fixture
def settings(redis_url: str, tmp_path: Path) -> Settings:
    return Settings(
        redis_url=redis_url, store=(tmp_path / "store").as_uri(), worker_name="host-a", work_dir=tmp_path / "work",
        cache_dir=tmp_path / "cache", device="cpu", stop_grace_seconds=0.5, term_grace_seconds=0.5,
    )  # fmt: skip


@pytest.fixture
def host(settings: Settings, program: tuple[str, ...]) -> Iterator[Host]:
    host = Host(settings, program)
    host.journal.start()
    yield host
    host.journal.stop(0)
    host.redis.close()


@pytest.fixture
def ticket() -> Callable[..., Ticket]:
    def make(host: Host, mode: str, number: int = 1, incarnation: str | None = None) -> Ticket:
        spec = JobSpec.model_validate(
            {"name": mode, "task": "image-classification", "dataset": {"uri": "file:///data/x"}}
        )
        return Ticket(
            attempt_id=f"att_{mode}_{number}", job_id="job_1", attempt=number, spec=spec, device="cpu", devices=1,
            incarnation=incarnation or host.incarnation,
        )  # fmt: skip

    return make


class Book:
    """The recorder's side of the wire: takes lines in order, refuses gaps, acknowledges; keeps what it took."""

    def __init__(self, client: redis.Redis) -> None:
        self.redis = client
        self.lines: dict[str, list[dict[str, object]]] = {}

    def record(self) -> None:
        for entry_id, fields in self.redis.xrange(REPORTS_STREAM, count=500):
            attempt, line = str(fields["attempt"]), json.loads(fields["line"])
            taken = self.lines.setdefault(attempt, [])
            if line["seq"] == len(taken) + 1:
                taken.append(line)
            self.redis.hset(RECORDED_HASH, attempt, str(len(taken)))
            self.redis.xdel(REPORTS_STREAM, entry_id)

    def finished(self, attempt: str) -> dict[str, object] | None:
        self.record()
        last = (self.lines.get(attempt) or [{}])[-1]
        return last if last.get("kind") == "finished" else None


@pytest.fixture
def book(redis_client: redis.Redis) -> Book:
    return Book(redis_client)
