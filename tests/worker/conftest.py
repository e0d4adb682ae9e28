"""A host on a real Valkey, with a small real program in the training's place where a test is about the worker alone."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis

import worker.launcher
from tests.waiting import eventually
from training_core.contract.messages import RECORDED_HASH, REPORTS_STREAM, Ticket
from training_core.contract.run_dir import RunDir, RunSpec
from training_core.contract.spec import JobSpec
from worker.host import Host
from worker.launcher import Launcher
from worker.settings import Settings

# Trains nothing, but speaks through the run dir as both stages do: reports, obeys the stop file, writes an outcome.
PROGRAM = """
import json, os, signal, subprocess, sys, time
from pathlib import Path
from training_core.contract.reports import CheckpointSaved, Metric, Started
from training_core.processes.handover import taken
from training_core.contract.outcome import Outcome
from training_core.contract.run_dir import EventsFile, Prepared, RunDir

def prepare(run, mode):
    if mode == "bad-data":
        run.write_outcome(Outcome(result="failed", reason="dataset_invalid", phase="preparing", message="no"))
        return 1
    if mode == "die-preparing":
        os.kill(os.getpid(), 9)
    for _ in range(40 if mode == "quiet-data" else 0):
        run.events.touch()
        time.sleep(0.05)  # a preparation that has nothing to report for a while
    while mode == "slow-data" and not run.stop_requested():
        time.sleep(0.01)
    if mode == "slow-data":
        run.write_outcome(Outcome(result="stopped", phase="preparing"))
    elif run.read_spec().work == "check":
        run.write_outcome(Outcome(result="completed", phase="preparing"))
    else:
        folder = run.read_spec().cache_dir / "version"
        folder.mkdir(exist_ok=True)
        for name in ("meta.json", "rows"):
            (folder / name).touch()
        run.write_prepared(Prepared(folder=folder, selection=folder / "rows", seconds=1.5))
    return 0

def train(run, mode):
    with EventsFile(run.events) as events:
        events.append(Started())
        if mode == "escapes":
            child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
            (run.path / "escaped").write_text(str(child.pid))
        if mode == "stubborn":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if mode not in ("die", "silent", "deaf", "stubborn", "obey"):
            for step in range(1, 501):
                events.append(Metric(step=step, epoch=step / 100, values={"train/loss": 1 / step}))
            run.write_outcome(Outcome(result="completed", phase="running"))
            return 0
        if mode == "die":
            print("password=hunter2 the end", flush=True)
            os.kill(os.getpid(), 9)
        while mode == "silent":
            time.sleep(1)
        step = 0
        while mode in ("deaf", "stubborn") or not run.stop_requested():
            step += 1
            events.append(Metric(step=step, epoch=0, values={"train/loss": 1.0}))
            time.sleep(0.01)  # the pace of a training step
        events.append(CheckpointSaved(
            path=f"jobs/job_1/trial-0/attempt-1/step-{step:08d}", step=step, epoch=0, metrics={}, size_bytes=1,
            kept_because="last", files={}, sha256={},
        ))
        run.write_outcome(Outcome(result="stopped", phase="running", step=step))
    return 0

def carry_out(stage, run):
    fresh = __name__ == "__main__"  # an interpreter of its own, where a fork has imported this file
    seen = {"pid": os.getpid(), "environment": dict(os.environ), "interpreter": fresh}
    seen["handed"] = (taken() or b"").decode()
    (run.path / f"{stage}.json").write_text(json.dumps(seen))
    return {"prepare": prepare, "train": train}[stage](run, run.read_spec().spec.name)

if __name__ == "__main__":
    sys.exit(carry_out(sys.argv[3], RunDir(Path(sys.argv[1]))))
"""

# The launcher itself, but for what it imports and what its children carry out: `PROGRAM`.
LAUNCHER = """
import importlib.util, sys
from training_core.runtime import launch, launcher
spec = importlib.util.spec_from_file_location("program", sys.argv.pop(1))
program = importlib.util.module_from_spec(spec)
spec.loader.exec_module(program)
launcher.PRELOADED = ()
for stage in launch.STAGES:
    launch.STAGES[stage] = lambda run, stage=stage: program.carry_out(stage, run)
sys.exit(launcher.main())
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
        warm_launcher=False, slot_wait_seconds=60,
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
    def make(host: Host, mode: str, number: int = 1, incarnation: str | None = None, **changes: Any) -> Ticket:
        spec = JobSpec.model_validate(
            {"name": mode, "task": "image-classification", "dataset": {"uri": "file:///data/x"}}
        )
        fixed = {"attempt_id": f"att_{mode}_{number}", "job_id": "job_1", "attempt": number, "spec": spec}
        usual = {"device": "cpu", "devices": 1, "incarnation": incarnation or host.incarnation}
        return Ticket.model_validate(fixed | usual | changes)

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


@pytest.fixture
def launcher_program(program: tuple[str, ...], tmp_path: Path) -> tuple[str, ...]:
    path = tmp_path / "launcher.py"
    path.write_text(LAUNCHER)
    return (sys.executable, str(path), program[1])


@pytest.fixture
def start_launcher(
    settings: Settings, launcher_program: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Launcher]]:
    # Whoever edits the code while the tests run replaces no launcher of theirs.
    monkeypatch.setattr(worker.launcher, "code_version", lambda: 0)
    started: list[Launcher] = []

    def start(**changes: object) -> Launcher:
        launcher = Launcher(settings.model_copy(update=changes), launcher_program)
        started.append(launcher)
        launcher.start()
        eventually(lambda: launcher.pid, 30)
        return launcher

    yield start
    for launcher in started:
        launcher.stop()


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., RunDir]:
    def make(mode: str, number: int = 0) -> RunDir:
        run = RunDir(tmp_path / f"{mode}-{number}")
        run.path.mkdir()
        spec = {"name": mode, "task": "image-classification", "dataset": {"uri": "file:///data/x"}}
        run.write_spec(
            RunSpec(spec=JobSpec.model_validate(spec), store=f"file://{tmp_path}/store", cache_dir=tmp_path / "cache")
        )
        return run

    return make


@pytest.fixture
def no_child_but(redis_url: str) -> Callable[[int | None], bool]:
    """Whether this process has one child more than when the test began; a zombie counts."""
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    return lambda pid: {child.pid for child in psutil.Process().children(recursive=True)} - before <= {pid}
