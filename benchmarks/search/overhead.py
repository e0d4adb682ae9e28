"""What a trial costs beside its training: a search of our service, and Ray Tune with the same trainings.

    python -m benchmarks.search.overhead [--trials 40] [--parallel 4] [--quick]

Both train the same network on the same images with the same steps, batch and evaluation, one thread a trial, several
trials at a time on the same cores, and write a checkpoint each. A place is what one of the parallel trials takes, here
half a core. Its seconds are those of the training (steps and evaluations) and others: within the trial, and from one
trial's end to the next one's beginning. Ray's trial begins and ends where its function does. Ray's row needs the extra
`bench`.
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
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
from numpy.typing import NDArray

from benchmarks.data.machine import machine
from benchmarks.engine.submit import start, until_warm
from local.stack import ROOT, Stack
from training_core.contract.reports import Finished, FirstStep, PlanChosen, Started, Summary, decode
from training_core.contract.run_dir import RunDir, complete_lines
from training_core.data.sampler import Indices
from training_core.vision.dataset_view import Chosen

RESULT = Path(__file__).parent / "results" / "overhead.md"
TARGET_SECONDS = 0.3
CORES = len(os.sched_getaffinity(0))
PATIENCE_SECONDS = 900.0
LABELS = {
    "begin": "slot held to process up and model built",
    "rest": "beside steps and evaluations: checkpoints, summary",
    "end": "summary to process gone and slot free",
}


@dataclass(frozen=True)
class Trial:
    """Wall times of one trial on its place; `spent` seconds in steps and evaluations, `parts` those of the rest.

    `warming` is what the first step took longer than the others do; it is of `spent`.
    """

    began: float
    ended: float
    spent: float
    parts: dict[str, float] = field(default_factory=dict)
    warming: float = 0.0

    @property
    def within(self) -> float:
        return self.ended - self.began - self.spent


@dataclass(frozen=True)
class Measured:
    """`seconds` from asking to having the result of all trials."""

    trials: list[Trial]
    seconds: float

    def gaps(self, parallel: int) -> list[float]:
        """Seconds that a place was empty: the first trial after the `parallel` first ones needs the first end …"""
        begins = sorted(trial.began for trial in self.trials)[parallel:]
        ends = sorted(trial.ended for trial in self.trials)[: len(begins)]
        return [max(0.0, began - ended) for began, ended in zip(begins, ends, strict=True)]

    def all_in(self, parallel: int) -> float:
        """Seconds of a place for each trial that were not in its training, beginning and end of the search included."""
        return (parallel * self.seconds - sum(trial.spent for trial in self.trials)) / len(self.trials)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--parallel", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="eight trials; writes no file")
    wanted = parser.parse_args()
    print(table := measure(8 if wanted.quick else wanted.trials, wanted.parallel, wanted.epochs))
    if not wanted.quick:
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(table)


def measure(trials: int, parallel: int, epochs: int) -> str:
    os.environ |= {"TRAINYARD_DEVICE": "cpu", "TRAINYARD_SLOTS": str(CORES)}
    spec = make_spec(trials, parallel, epochs)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as ends:
        state = Path(folder)
        state.chmod(0o755)
        stack = start(state / "service", "1", ends)
        until_warm(stack)
        search(stack, {**spec, "search": {**spec["search"], "trials": 2}})  # prepares the data, warms the page cache
        job = search(stack, spec)
        runs = stack.state / "work" / "runs" / job["id"]
        ours = Measured([trial_of(RunDir(path)) for path in sorted(runs.glob("trial-*/attempt-*"))], job["seconds"])
        ends.close()
        ray = ray_tune(state, RunDir(runs / "trial-0" / "attempt-1"), spec)
    return show(ours, ray, spec)


def make_spec(trials: int, parallel: int, epochs: int) -> dict[str, Any]:
    spec: dict[str, Any] = json.loads((ROOT / "examples" / "fashion-mnist.json").read_text())
    space = {"training.optimizer.learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True}}
    return {
        **spec,
        "training": {
            "epochs": epochs, "batch_size": 128, "augmentation": "none", "early_stopping": None,
            "optimizer": {"name": "adamw"},
        },
        "compute": {"profile": "cpu", "share": CORES / parallel},
        "search": {
            "space": space, "trials": trials, "parallel": parallel, "sampler": "random", "pruner": "none",
            "finish": "none",
        },
    }  # fmt: skip


def search(stack: Stack, spec: dict[str, Any]) -> dict[str, Any]:
    """The job at its end, and the `seconds` from the POST to there."""
    headers = {"Authorization": f"Bearer {stack.key()}"}
    with httpx2.Client(base_url=stack.url, headers=headers, timeout=90, trust_env=False) as client:
        began = time.time()
        answer = client.post("/v1/jobs", json=spec)
        assert answer.status_code == 202, answer.text
        job: dict[str, Any] = answer.json()
        while not job["terminal"]:
            assert time.time() - began < PATIENCE_SECONDS, job
            job = client.get(f"/v1/jobs/{job['id']}?wait=60&until=terminal").json()
    assert job["status"] == "succeeded", job["error"]
    return {**job, "seconds": datetime.fromisoformat(job["phases"]["finished"]).timestamp() - began}


def trial_of(run: RunDir) -> Trial:
    """Out of the reports of its one attempt."""
    reports = [decode(line) for line, _ in complete_lines(run.events, 0)]
    plan, started, first_step, summary, finished = (
        next(one for one in reports if isinstance(one, kind))
        for kind in (PlanChosen, Started, FirstStep, Summary, Finished)
    )
    assert finished.held_seconds is not None, run.path
    # The slot is free a moment later, and was taken as much later than this says.
    ended, seconds = run.outcome.stat().st_mtime, summary.seconds
    began = ended - finished.held_seconds
    steps = seconds["train"] + seconds["data"]
    spent = steps + seconds["evaluate"]
    parts = {"begin": started.at - began, "end": ended - summary.at}
    parts["rest"] = finished.held_seconds - spent - sum(parts.values())
    warming = first_step.at - started.at - steps / plan.total_steps
    return Trial(began, ended, spent, parts, warming)


def ray_tune(state: Path, first: RunDir, spec: dict[str, Any]) -> Measured | None:
    """None where Ray is not installed."""
    if importlib.util.find_spec("ray") is None:
        return None
    arrays, settings = state / "arrays.npz", state / "settings.json"
    settings.write_text(json.dumps(write_arrays(arrays, first, spec)))
    # Ray makes its workers nice, ours are not.
    variables = os.environ | {"HOME": str(state), "RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.search.overhead_ray", str(arrays), str(settings)],
        cwd=ROOT, env=variables, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    return Measured([Trial(one["entered"], one["left"], one["spent"]) for one in told["trials"]], told["seconds"])


def write_arrays(path: Path, first: RunDir, spec: dict[str, Any]) -> dict[str, Any]:
    """The images that our trials trained on and were judged by, and what else their trainings were."""
    data = Chosen(first.read_prepared())
    reports = (decode(line) for line, _ in complete_lines(first.events, 0))
    plan = next(one for one in reports if isinstance(one, PlanChosen))
    train, validation = (data.splits[name] for name in ("train", "validation"))
    np.savez(
        path,
        images=pixels(data, train),
        labels=data.labels[train],
        validation_images=pixels(data, validation),
        validation_labels=data.labels[validation],
    )
    return {
        "classes": len(data.meta.classes), "epochs": plan.total_epochs, "batch_size": spec["training"]["batch_size"],
        "steps": plan.total_steps, "steps_per_epoch": plan.total_steps // plan.total_epochs, "cores": CORES,
        "trials": spec["search"]["trials"], "parallel": spec["search"]["parallel"],
    }  # fmt: skip


def pixels(data: Chosen, rows: Indices) -> NDArray[np.uint8]:
    """`(rows, channels, height, width) uint8`."""
    return np.ascontiguousarray(np.moveaxis(data.pack.gather(rows), -1, 1))


def show(ours: Measured, ray: Measured | None, spec: dict[str, Any]) -> str:
    wanted, today = spec["search"], datetime.now(UTC).date().isoformat()
    contenders = {"ours": ours} | ({} if ray is None else {"Ray Tune": ray})
    title = [
        "# What a trial costs beside its training\n",
        f"`python -m benchmarks.search.overhead --trials {wanted['trials']} --parallel {wanted['parallel']} --epochs "
        f"{spec['training']['epochs']}` on {machine()}, {today}; load average {os.getloadavg()[0]:.1f} at the end.",
        "",
    ]
    names = "".join(f" {name}, median | 90 % |" for name in contenders)
    head = [f"| seconds of a place, each trial |{names}", "|---|" + "---:|---:|" * len(contenders)]
    rows = {
        "in steps and evaluations": {name: [one.spent for one in seen.trials] for name, seen in contenders.items()},
        "**others within the trial**": {name: [one.within for one in seen.trials] for name, seen in contenders.items()},
        "from a trial's end to the next": {name: seen.gaps(wanted["parallel"]) for name, seen in contenders.items()},
    }
    rows |= {f"ours within: {LABELS[part]}": {"ours": [one.parts[part] for one in ours.trials]} for part in LABELS}
    rows["ours: in the first step beyond a step, of the first row"] = {"ours": [one.warming for one in ours.trials]}
    lines = [
        "".join([f"| {label} |", *(_cells(values.get(name)) for name in contenders)]) for label, values in rows.items()
    ]
    whole = " | ".join(f"{seen.all_in(wanted['parallel']):.3f} | " for seen in contenders.values())
    lines.append(f"| all beside training, beginning and end of the search too, mean | {whole}|")
    met = statistics.median(one.within for one in ours.trials) <= TARGET_SECONDS
    verdict = f"Others within the trial, median, at most {TARGET_SECONDS} s: {'met' if met else 'MISSED'}."
    return "\n".join([*title, *head, *lines, "", verdict, ""])


def _cells(values: list[float] | None) -> str:
    if not values:
        return " | |"
    return f" {statistics.median(values):.3f} | {float(np.quantile(values, 0.9)):.3f} |"


if __name__ == "__main__":
    main()
