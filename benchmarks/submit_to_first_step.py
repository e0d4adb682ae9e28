"""Phases from POST to the first optimizer step: with the warm launcher, without it, and by plain `torchrun`.

    make benchmark          or: python -m benchmarks.submit_to_first_step --runs 5 [--data FOLDER]

All three read prepared data (an unmeasured job each prepares it), train the same spec on one CPU rank and end after the
first epoch, turn by turn. The floor is what no launcher can avoid without a warm process: a fresh Python that imports
torch. FOLDER holds class folders, or train/ and test/ with class folders.
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
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx2

from local.stack import ROOT, Stack
from training_core.events import FirstStep, decode
from training_core.rundir import RunDir, RunSpec, complete_lines
from training_core.spec import JobSpec

LABELS = {
    "answered": "POST answered",
    "queued": "in the book",
    "dispatched": "attempt booked, ticket sent",
    "claimed": "claimed by the worker",
    "data_ready": "data checked",
    "started": "slot held, process started, model built",
    "first_step": "first optimizer step",
}
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1", "-m", "training_core.train")
LAUNCHER_SECONDS = 120.0

Phases = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--data", type=Path, help="a folder of images instead of the small sample")
    arguments = parser.parse_args()
    spec = json.loads((ROOT / "examples" / "fashion-mnist.json").read_text())
    spec["training"] = {**spec.get("training", {}), "epochs": 1}
    if arguments.data is not None:
        spec["dataset"] = {"uri": arguments.data.absolute().as_uri()}
        os.environ["TRAINYARD_DATA_ROOTS"] = str(arguments.data.absolute())
    os.environ.setdefault("TRAINYARD_DEVICE", "cpu")
    warm_runs, cold_runs, plain_runs = [], [], []
    with tempfile.TemporaryDirectory() as folder, ExitStack() as ends:
        state = Path(folder)
        state.chmod(0o755)
        warm, cold = start(state / "warm", "1", ends), start(state / "cold", "0", ends)
        for stack in (warm, cold):
            service(stack, spec)  # prepares the data and warms the page cache
        until_warm(warm)
        for number in range(arguments.runs):
            warm_runs.append(service(warm, spec))
            cold_runs.append(service(cold, spec))
            plain_runs.append(plain(state, spec, number))
    show(warm_runs, cold_runs, plain_runs, [import_torch() for _ in range(arguments.runs)])


def start(state: Path, warm_launcher: str, ends: ExitStack) -> Stack:
    stack = Stack(state, port=None, durable=False, say=lambda _: None)
    os.environ["TRAINYARD_WARM_LAUNCHER"] = warm_launcher
    ends.callback(stack.stop)
    stack.start()
    return stack


def until_warm(stack: Stack) -> None:
    """A worker takes jobs from its first second on; this is about those that come later."""
    deadline = time.monotonic() + LAUNCHER_SECONDS
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
    # The first of each kind: a report is written when its phase is reached.
    reached = {one.kind: one.at for one in reversed([decode(line) for line, _ in complete_lines(run.events, 0)])}
    reached |= {name: datetime.fromisoformat(job["phases"][name]).timestamp() for name in ("queued", "dispatched")}
    reached["answered"] = answered
    return {name: reached[name] - began for name in LABELS}


def plain(state: Path, spec: dict[str, Any], number: int) -> float:
    """Seconds from starting torchrun to the first optimizer step of the same training, data prepared."""
    run_dir = RunDir(state / f"plain-{number}")
    run_dir.path.mkdir()
    run_dir.write_spec(
        RunSpec(
            spec=JobSpec.model_validate(spec),
            store=(state / "store").as_uri(),
            cache_dir=state / "cold" / "cache",
            data_roots=[Path(os.environ.get("TRAINYARD_DATA_ROOTS", ROOT))],
        )
    )
    began = time.time()
    with run_dir.log.open("wb") as log:
        subprocess.run(
            [sys.executable, *TORCHRUN, str(run_dir.path)],
            stdout=log, stderr=log, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": str(os.cpu_count())}, check=True,
        )  # fmt: skip
    first = next(r for line, _ in complete_lines(run_dir.events, 0) if isinstance(r := decode(line), FirstStep))
    return first.at - began


def import_torch() -> float:
    began = time.time()
    subprocess.run([sys.executable, "-c", "import torch"], check=True)
    return time.time() - began


def show(warm: list[Phases], cold: list[Phases], plain_runs: list[float], imports: list[float]) -> None:
    print(f"medians of {len(warm)}; seconds since the POST (torchrun: since its start); {os.cpu_count()} cores\n")
    print(f"  {'':<48}{'warm':>8}{'':>10}{'cold':>8}")
    before = {"warm": 0.0, "cold": 0.0}
    for name, label in LABELS.items():
        words = f"  {label:<48}"
        for column, runs in (("warm", warm), ("cold", cold)):
            value = statistics.median(run[name] for run in runs)
            words += f"{value:8.3f}  {value - before[column]:+8.3f}"
            before[column] = value
        print(words)
    print()
    for column, runs in (("warm", warm), ("cold", cold)):
        claimed = statistics.median(run["first_step"] - run["claimed"] for run in runs)
        ratios = [run["first_step"] / other for run, other in zip(runs, plain_runs, strict=True)]
        print(f"  {f'{column}: claim to first step':<48}{claimed:8.3f}")
        print(f"  {f'{column}: POST to first step / plain torchrun, by pair':<48}{statistics.median(ratios):8.2f}")
    print(f"  {'plain torchrun, start to first step':<48}{statistics.median(plain_runs):8.3f}")
    print(f"  {'floor: a fresh process that imports torch':<48}{statistics.median(imports):8.3f}")


if __name__ == "__main__":
    main()
