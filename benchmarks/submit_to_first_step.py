"""Phases from POST to the first optimizer step, beside plain `torchrun` of the same training on the same data.

    make benchmark          or: python -m benchmarks.submit_to_first_step --runs 5

Both sides read prepared data (one unmeasured job prepares it), train the same spec on one CPU rank and stop after the
first epoch. The floor is what no launcher can avoid without a warm process: a fresh Python that imports torch.
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
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx2

from local.stack import ROOT, Stack
from training_core.events import FirstStep, decode
from training_core.rundir import RunDir, RunSpec, complete_lines
from training_core.spec import JobSpec

PHASES = ("queued", "dispatched", "data_ready", "processes_up", "first_step")
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1", "-m", "training_core.train")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    spec = json.loads((ROOT / "examples" / "fashion-mnist.json").read_text())
    spec["training"] = {**spec.get("training", {}), "epochs": 1}
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder)
        state.chmod(0o755)
        stack = Stack(state / "stack", port=None, durable=False, say=lambda _: None)
        try:
            stack.start()
            service(stack, spec)  # prepares the data and warms the page cache
            pairs = [(service(stack, spec), plain(state, spec, number)) for number in range(runs)]
        finally:
            stack.stop()
        imports = [import_torch() for _ in range(runs)]
    show([phases for phases, _ in pairs], [seconds for _, seconds in pairs], imports)


def service(stack: Stack, spec: dict[str, Any]) -> dict[str, float]:
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
    reached = {name: datetime.fromisoformat(job["phases"][name]).timestamp() - began for name in PHASES}
    return {"answered": answered - began, **reached}


def plain(state: Path, spec: dict[str, Any], number: int) -> float:
    """Seconds from starting torchrun to the first optimizer step of the same training, data prepared."""
    run_dir = RunDir(state / f"plain-{number}")
    run_dir.path.mkdir()
    run_dir.write_spec(
        RunSpec(
            spec=JobSpec.model_validate(spec),
            store=(state / "store").as_uri(),
            cache_dir=state / "stack" / "cache",
            data_roots=[ROOT],
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


def show(service_runs: list[dict[str, float]], plain_runs: list[float], imports: list[float]) -> None:
    labels = {
        "answered": "POST answered",
        "queued": "in the book",
        "dispatched": "attempt booked, ticket sent",
        "data_ready": "worker claimed, process started, data checked",
        "processes_up": "torch imported, model built",
        "first_step": "first optimizer step",
    }
    print(
        f"median of {len(service_runs)}; seconds since the POST (torchrun: since its start); {os.cpu_count()} cores\n"
    )
    before = 0.0
    for name, label in labels.items():
        value = statistics.median(run[name] for run in service_runs)
        print(f"  {label:<48}{value:8.3f}  {value - before:+8.3f}")
        before = value
    ours, theirs = (statistics.median(one) for one in ([r["first_step"] for r in service_runs], plain_runs))
    ratios = [run["first_step"] / other for run, other in zip(service_runs, plain_runs, strict=True)]
    print(f"\n  {'Trainyard, POST to first step':<48}{ours:8.3f}")
    print(f"  {'plain torchrun, start to first step':<48}{theirs:8.3f}")
    print(f"  {'ratio, pair by pair (median)':<48}{statistics.median(ratios):8.2f}")
    print(f"  {'floor: a fresh process that imports torch':<48}{statistics.median(imports):8.3f}")


if __name__ == "__main__":
    main()
