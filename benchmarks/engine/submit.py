"""From POST to the first optimizer step of two ranks: our service warm and cold, plain torchrun, and Ray Train.

    python -m benchmarks.engine.submit [--runs 7] [--ranks 2] [--data FOLDER] [--quick]

All train the same network on the same prepared images with the same global batch, on two CPU ranks, turn by turn. The
floor is what nobody can avoid without a warm process: a fresh Python that imports torch. Ray's row needs the extra
`bench`; its time begins when `fit` is called, after `ray.init`, which is told apart.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2

from benchmarks.data.machine import machine
from local.stack import ROOT, Stack
from training_core.contract.reports import CheckpointSaved, FirstStep, decode
from training_core.contract.run_dir import RunDir, RunSpec, complete_lines
from training_core.contract.spec import JobSpec
from training_core.processes.process import adopt_orphans
from training_core.runtime.launcher_protocol import Stage
from worker.launcher import Launcher
from worker.process import Process, environment
from worker.settings import Settings

LABELS = {
    "answered": "POST answered",
    "queued": "in the book",
    "dispatched": "attempt booked, ticket sent",
    "claimed": "claimed by the worker",
    "data_ready": "data checked",
    "started": "slots held, ranks up, model built",
    "first_step": "first optimizer step",
}
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "-m", "training_core.train")
RESULT = Path(__file__).parent / "results" / "submit.md"
TARGET_SECONDS, LAUNCHER_TARGET_SECONDS = 1.0, 0.3
READY_SECONDS = 120.0
PROFILES = {1: "cpu", 2: "cpu-2"}

Phases = dict[str, float]


@dataclass
class Measured:
    """Seconds, one entry a turn."""

    warm: list[Phases] = field(default_factory=list)
    cold: list[Phases] = field(default_factory=list)
    torchrun: list[float] = field(default_factory=list)
    ray: list[dict[str, float]] = field(default_factory=list)
    floor: list[float] = field(default_factory=list)
    launcher: list[float] = field(default_factory=list)
    stop: list[float] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--ranks", type=int, choices=PROFILES, default=2)
    parser.add_argument("--data", type=Path, help="a folder of images instead of the small sample")
    parser.add_argument("--quick", action="store_true", help="one turn; writes no file")
    wanted = parser.parse_args()
    table = measure(1 if wanted.quick else wanted.runs, make_spec(wanted.ranks, wanted.data))
    print(table)
    if not wanted.quick:
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(table)


def measure(turns: int, spec: dict[str, Any]) -> str:
    seen = Measured()
    os.environ |= {"TRAINYARD_DEVICE": "cpu", "TRAINYARD_SLOTS": str(ranks_in(spec))}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as ends:
        state = Path(folder)
        state.chmod(0o755)
        warm, cold = start(state / "warm", "1", ends), start(state / "cold", "0", ends)
        for stack in (warm, cold):
            service(stack, spec)  # prepares the data, probes the machine and warms the page cache
        until_warm(warm)
        for number in range(turns):
            seen.warm.append(service(warm, spec))
            seen.stop.append(stopped(warm, spec))
            seen.cold.append(service(cold, spec))
            seen.torchrun.append(plain(state, spec, number))
            seen.ray += ray_train()
            seen.floor.append(import_torch())
        ends.close()
        seen.launcher = launcher_part(state, spec, max(5, turns))
    return show(seen)


def make_spec(ranks: int, data: Path | None) -> dict[str, Any]:
    spec: dict[str, Any] = json.loads((ROOT / "examples" / "fashion-mnist.json").read_text())
    spec["training"] = {**spec.get("training", {}), "epochs": 1, "batch_size": 128}
    spec["compute"] = {"profile": PROFILES[ranks], "strategy": "single" if ranks == 1 else "ddp"}
    if data is not None:
        spec["dataset"] = {"uri": data.absolute().as_uri()}
        os.environ["TRAINYARD_DATA_ROOTS"] = str(data.absolute())
    return spec


def ranks_in(spec: dict[str, Any]) -> int:
    return next(ranks for ranks, profile in PROFILES.items() if profile == spec["compute"]["profile"])


def start(state: Path, warm_launcher: str, ends: ExitStack) -> Stack:
    stack = Stack(state, port=None, durable=False, say=lambda _: None)
    os.environ["TRAINYARD_WARM_LAUNCHER"] = warm_launcher
    ends.callback(stack.stop)
    stack.start()
    return stack


def until_warm(stack: Stack) -> None:
    """A worker takes jobs from its first second on; this is about those that come later."""
    deadline = time.monotonic() + READY_SECONDS
    while "the launcher is ready" not in (stack.logs / "worker.log").read_text():
        assert time.monotonic() < deadline, "the launcher does not become ready"
        time.sleep(0.1)


def service(stack: Stack, spec: dict[str, Any]) -> Phases:
    """Seconds since the POST was sent at which a job got to each phase."""
    headers = {"Authorization": f"Bearer {stack.key()}"}
    with httpx2.Client(base_url=stack.url, headers=headers, timeout=90, trust_env=False) as client:
        began = time.time()
        answer = client.post("/v1/jobs", json=spec)
        answered = time.time()
        job = answer.json()
        while not job["terminal"]:
            job = client.get(f"/v1/jobs/{job['id']}?wait=60&until=terminal").json()
    assert job["status"] == "succeeded", job["error"]
    run = RunDir(stack.state / "work" / "runs" / job["id"] / "trial-0" / f"attempt-{job['attempt']}")
    assert run.read_plan().ranks == ranks_in(spec)
    # The first of each kind: a report is written when its phase is reached.
    reached = {one.kind: one.at for one in reversed([decode(line) for line, _ in complete_lines(run.events, 0)])}
    reached |= {name: datetime.fromisoformat(job["phases"][name]).timestamp() for name in ("queued", "dispatched")}
    reached["answered"] = answered
    return {name: reached[name] - began for name in LABELS}


def stopped(stack: Stack, spec: dict[str, Any]) -> float:
    """Seconds from the request to cancel a training to its complete last checkpoint."""
    endless = {**spec, "training": {**spec["training"], "epochs": 5000, "early_stopping": None}}
    headers = {"Authorization": f"Bearer {stack.key()}"}
    with httpx2.Client(base_url=stack.url, headers=headers, timeout=90, trust_env=False) as client:
        job = client.post("/v1/jobs", json=endless).json()
        run = RunDir(stack.state / "work" / "runs" / job["id"] / "trial-0" / "attempt-1")
        while not any(b'"first_step"' in line for line, _ in complete_lines(run.events, 0)):
            time.sleep(0.05)
        began = time.time()
        client.post(f"/v1/jobs/{job['id']}/cancel").raise_for_status()
        while not job["terminal"]:
            job = client.get(f"/v1/jobs/{job['id']}?wait=60&until=terminal").json()
    assert job["status"] == "cancelled", job
    saved = [r for line, _ in complete_lines(run.events, 0) if isinstance(r := decode(line), CheckpointSaved)]
    return saved[-1].at - began


def run_dir_of(folder: Path, name: str, spec: dict[str, Any]) -> RunDir:
    """One on the data that the cold service has prepared."""
    run_dir = RunDir(folder / name)
    run_dir.path.mkdir()
    run_dir.write_spec(
        RunSpec(
            spec=JobSpec.model_validate(spec),
            store=(folder / "store").as_uri(),
            cache_dir=folder / "cold" / "cache",
            data_roots=[Path(os.environ.get("TRAINYARD_DATA_ROOTS", ROOT))],
            devices=ranks_in(spec),
        )
    )
    return run_dir


def plain(folder: Path, spec: dict[str, Any], number: int) -> float:
    """Seconds from starting torchrun to the first optimizer step of the same training, data prepared."""
    run_dir = run_dir_of(folder, f"plain-{number}", spec)
    began = time.time()
    with run_dir.log.open("wb") as log:
        subprocess.run(
            [sys.executable, *TORCHRUN[:3], f"--nproc-per-node={ranks_in(spec)}", *TORCHRUN[3:], str(run_dir.path)],
            stdout=log, stderr=log, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True,
        )  # fmt: skip
    first = next(r for line, _ in complete_lines(run_dir.events, 0) if isinstance(r := decode(line), FirstStep))
    return first.at - began


def ray_train() -> list[dict[str, float]]:
    """Seconds of `ray.init`, and from `fit` to the first step; nothing where Ray is not installed."""
    if importlib.util.find_spec("ray") is None:
        return []
    with tempfile.TemporaryDirectory() as home:  # it leaves a token there
        variables = os.environ | {"HOME": home, "RAY_TRAIN_V2_ENABLED": "1", "RAY_USAGE_STATS_ENABLED": "0"}
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.engine.submit_ray"],
            cwd=ROOT, env=variables, capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(done.stdout.splitlines()[-1])]


def import_torch() -> float:
    began = time.time()
    subprocess.run([sys.executable, "-c", "import torch"], check=True)
    return time.time() - began


def launcher_part(folder: Path, spec: dict[str, Any], count: int) -> list[float]:
    """Seconds from the worker's order to the warm launcher until every rank runs its own code."""
    os.environ["PYTHONPATH"] = str(ROOT)
    seconds = []
    with ready_launcher(folder) as launcher:
        for number in range(count):
            run_dir = run_dir_of(folder, f"launch-{number}", spec)
            assert ordered(launcher, run_dir, "prepare").wait(60) == 0
            began = time.perf_counter()
            process = ordered(launcher, run_dir, "train")
            while not are_up(process.pid, ranks_in(spec)):
                time.sleep(0.001)
            seconds.append(time.perf_counter() - began)
            assert process.wait(120) == 0, run_dir.log.read_text()
    return seconds


def ordered(launcher: Launcher, run_dir: RunDir, stage: Stage) -> Process:
    process = launcher.launch(run_dir, stage, environment(device="cpu", slots=(), threads=1))
    assert process is not None, "the launcher was replaced: somebody has changed the code while this was measured"
    return process


@contextmanager
def ready_launcher(folder: Path) -> Iterator[Launcher]:
    adopt_orphans()
    settings = Settings.model_validate({"redis_url": "redis://nowhere", "store": folder.as_uri(), "device": "cpu"})
    launcher = Launcher(settings)
    launcher.start()
    deadline = time.monotonic() + READY_SECONDS
    while launcher.pid is None:
        assert time.monotonic() < deadline, "the launcher does not become ready"
        time.sleep(0.1)
    yield launcher
    launcher.stop()


def are_up(pid: int, ranks: int) -> bool:
    """Whether each rank has taken its title; one alone is the process itself."""
    wanted, pids = b"trainyard train", [str(pid)]
    if ranks > 1:
        wanted, pids = b"trainyard rank", Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return sum(Path(f"/proc/{one}/cmdline").read_bytes().startswith(wanted) for one in pids) == ranks


def show(seen: Measured) -> str:
    ours = statistics.median(run["first_step"] for run in seen.warm)
    launch = statistics.median(seen.launcher)
    rows = [
        ("ours, warm: POST to first step", ours, _verdict(ours, TARGET_SECONDS)),
        ("of it, order to ranks up (launcher part)", launch, _verdict(launch, LAUNCHER_TARGET_SECONDS)),
        ("ours: cancel to the complete last checkpoint", statistics.median(seen.stop), ""),
        ("ours, cold: POST to first step", statistics.median(run["first_step"] for run in seen.cold), ""),
        ("torchrun, start to first step", statistics.median(seen.torchrun), ""),
    ]
    if seen.ray:
        rows.append(("Ray Train, fit to first step", statistics.median(run["fit"] for run in seen.ray), ""))
        rows.append(("Ray, ray.init before that", statistics.median(run["init"] for run in seen.ray), "not counted"))
    rows.append(("floor: a fresh process that imports torch", statistics.median(seen.floor), ""))
    lines = [f"| {name} | {seconds:.3f} | {seconds / ours:.2f} | {figure} |" for name, seconds, figure in rows]
    head = ["| on CPU ranks | seconds, median | times ours | figure |", "|---|---:|---:|---|"]
    return "\n".join([*_title(len(seen.warm)), *head, *lines, "", *_phases(seen.warm, seen.cold), ""])


def _verdict(seconds: float, target: float) -> str:
    return f"<= {target} s {'met' if seconds <= target else 'MISSED'}"


def _title(turns: int) -> list[str]:
    today = datetime.now(UTC).date().isoformat()
    return [
        "# Submit to first step",
        "",
        f"`python -m benchmarks.engine.submit --runs {turns}` on {machine()}, {today}; medians of {turns} interleaved "
        f"turns, load average {os.getloadavg()[0]:.1f} at the end.",
        "",
    ]


def _phases(warm: list[Phases], cold: list[Phases]) -> list[str]:
    lines = ["| seconds since the POST | warm | step | cold | step |", "|---|---:|---:|---:|---:|"]
    before = [0.0, 0.0]
    for name, label in LABELS.items():
        now = [statistics.median(run[name] for run in runs) for runs in (warm, cold)]
        cells = [f"{value:.3f} | {value - earlier:+.3f}" for value, earlier in zip(now, before, strict=True)]
        lines.append(f"| {label} | {' | '.join(cells)} |")
        before = now
    return lines


if __name__ == "__main__":
    main()
