"""Training with real data against its own steps on one resident batch, for `benchmarks.engine.overhead`.

Fashion-MNIST is prepared as by a job and comes through its feed, augmented. The steps are the training's own in both
turns. What making the images costs cannot vanish on a CPU: the bound is the step on the resident batch and the
CPU time of the loader's threads, shared by all cores.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.data.fashion import ORIGINAL
from benchmarks.engine.steps import ALONE, assemble  # first: it is a good neighbour

# isort: split
import torch

from training_core.contract.compute_plan import ComputePlan
from training_core.contract.run_dir import RunDir, RunSpec
from training_core.contract.spec import JobSpec
from training_core.engine.step import train_step
from training_core.engine.training import Training
from training_core.planner.plan import Plan, choose_plan
from training_core.runtime.planning import data_facts
from training_core.tasks.image_classification.learner import gather
from training_core.vision.data_loaders import Feed, open_feed
from training_core.vision.dataset_view import Chosen
from training_core.vision.prefetch import Batch, Normalise

ROOT = Path(__file__).parents[2]
CASES = {"small_cnn": 64, "small_resnet": 256, "resnet18": 64}  # images of a batch
WARM_STEPS = 5
LIMIT = 0.95


@dataclass(frozen=True)
class Turn:
    """Of one step: wall seconds, and CPU seconds of the threads that make batches."""

    wall: float
    loader: float


def measure(folder: Path, rounds: int, steps: int, names: list[str]) -> list[str]:
    """Rows of a Markdown table."""
    run, run_dir = prepared(folder)
    rows = [
        "\n## Real data: Fashion-MNIST, augmented as `auto` does\n",
        "| network, batch | resident batch (ms) | real data (ms) | loader CPU ms a step | share of the bound (median "
        f"of rounds) | at least {LIMIT:.0%} |",
        "|---|---:|---:|---:|---:|---|",
    ]
    for name in names:
        resident, real, share = compare(run, run_dir, name, rounds, steps)
        verdict = "met" if share >= LIMIT else "**missed**"
        rows.append(
            f"| {name}, {CASES[name]} | {1e3 * resident.wall:.3f} | {1e3 * real.wall:.3f} | {1e3 * real.loader:.3f} | "
            f"{share:.1%} | {verdict} |"
        )
    return [
        *rows,
        f"\nThe bound: the resident step, and the loader's CPU time over {cores()} cores. Means of {steps} steps.",
    ]


def prepared(folder: Path) -> tuple[RunSpec, RunDir]:
    """As a job prepares it, in a process of its own."""
    run_dir = RunDir(folder / "run")
    run_dir.path.mkdir()
    spec = JobSpec.model_validate({"task": "image-classification", "dataset": {"uri": f"file://{ORIGINAL}"}})
    run = RunSpec(
        spec=spec, store=f"file://{folder}/store", cache_dir=folder / "cache", data_roots=[ORIGINAL.parent], threads=0
    )
    run_dir.write_spec(run)
    command = [sys.executable, "-m", "training_core.runtime.launch", "--stage", "prepare", str(run_dir.path)]
    subprocess.run(command, cwd=ROOT, check=True)
    return run, run_dir


def compare(run: RunSpec, run_dir: RunDir, name: str, rounds: int, steps: int) -> tuple[Turn, Turn, float]:
    """Medians of both turns, and the median share of the bound that training with real data reaches."""
    training, feed = assembled(run, run_dir, name)
    batches = feed.training(0)
    resident = next(batches)
    pairs = []
    try:
        for number in range(rounds + 1):
            pair = (steps_of(training, same(resident), steps), steps_of(training, batches, steps))
            if number:  # the first round chooses kernels
                pairs.append(pair)
    finally:
        feed.close()
    share = statistics.median((bare.wall + real.loader / cores()) / real.wall for bare, real in pairs)
    return middle([bare for bare, _ in pairs]), middle([real for _, real in pairs]), share


def assembled(run: RunSpec, run_dir: RunDir, name: str) -> tuple[Training, Feed]:
    spec = run.spec.model_copy(
        update={
            "model": run.spec.model.model_copy(update={"name": name}),
            "training": run.spec.training.model_copy(update={"batch_size": CASES[name]}),
        }
    )
    prepared_data = run_dir.read_prepared()
    plan: Plan = choose_plan(spec, data_facts(prepared_data), device="cpu").on(ComputePlan(threads=cores()))
    own = run.model_copy(update={"spec": spec})
    data = Chosen(prepared_data)
    pixels = gather(own, data, None, lambda: False).statistics
    normalise = Normalise(pixels.mean, pixels.deviation, torch.device("cpu"))
    return assemble(run_dir.path, plan, own, normalise=normalise), open_feed(data, plan, own, ALONE)


def same(batch: Batch) -> Iterator[Batch]:
    while True:
        yield batch


def steps_of(training: Training, batches: Iterator[Batch], steps: int) -> Turn:
    """Means, after a few steps in which what was made ahead is used up."""
    for _ in range(WARM_STEPS):
        step(training, next(batches))
    started, before = time.perf_counter(), loader_seconds()
    for _ in range(steps):
        step(training, next(batches))
    return Turn((time.perf_counter() - started) / steps, (loader_seconds() - before) / steps)


def step(training: Training, batch: Batch) -> None:
    training.meter.lap("data_wait")
    train_step(training, batch)
    training.state.step += 1


def loader_seconds() -> float:
    """CPU seconds of the threads of `ThreadCrew`, so far."""
    own = [one for one in threading.enumerate() if one.name.startswith("batches-")]
    clocks = [time.pthread_getcpuclockid(one.ident) for one in own if one.ident is not None]
    return sum(time.clock_gettime(clock) for clock in clocks)


def middle(turns: list[Turn]) -> Turn:
    return Turn(statistics.median(one.wall for one in turns), statistics.median(one.loader for one in turns))


def cores() -> int:
    return len(os.sched_getaffinity(0))
