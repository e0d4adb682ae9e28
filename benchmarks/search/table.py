"""Makes `trainings.json.gz`: real trainings of every configuration of a grid, judged at many points of their course.

    python -m benchmarks.search.table [--table second] [--processes 2] [--quick]

Contenders search this table in place of training (`compete.py`): they are asked for ten seeds each in minutes, which
would take hours for real, and all see the very same trainings. Every number in it was measured: 6,000 images of
Fashion-MNIST at half their side, 2,000 others to validate on, small_cnn, training_core's own step, schedule and
averaged weights, one thread each.

The grid is wide, as one would ask for who knows nothing: most of it is bad. The second table is of another network,
other images and another seed, the third of twice as many epochs, other images and another seed again; nothing is tuned
on them. What is made stays in
`.trainyard/search-table`, so that an interrupted making goes on where it was.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import math
import multiprocessing
import os
import random
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import nullcontext
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cache

import torch

from benchmarks.data.machine import machine
from benchmarks.search.courses import FRACTIONS, PART_IMAGES, TABLES, Choice, Course
from benchmarks.search.grid import (
    GRID,
    MAKINGS,
    ROOT,
    SIDE,
    TRAIN_IMAGES,
    VALIDATION_IMAGES,
    Making,
    prepare,
    spec_of,
    values_of,
)  # fmt: skip
from training_core.contract.compute_plan import ComputePlan
from training_core.contract.run_dir import RunDir
from training_core.engine.step import train_step
from training_core.engine.training import Training
from training_core.optimisation.averaging import Ema
from training_core.planner.plan import choose_plan
from training_core.preflight.short_run import judge, short_training
from training_core.processes.heap import keep_freed_memory
from training_core.runtime.planning import data_facts
from training_core.tasks.image_classification.learner import gather
from training_core.vision.dataset_view import Chosen

CPU = torch.device("cpu")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", choices=list(TABLES), default="first")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="three configurations; writes no file")
    options = parser.parse_args()
    making = next(one for one in MAKINGS if one.name == options.table)
    making.folder.mkdir(parents=True, exist_ok=True)
    prepare(making)
    choices = list(itertools.product(*(range(len(values)) for values in GRID.values())))
    random.Random(0).shuffle(choices)  # what is made of an interrupted table is a fair sample of it
    wanted = choices[:3] if options.quick else choices
    make(making, [one for one in wanted if one not in made(making)], options.processes)
    courses = [made(making)[one] for one in sorted(wanted)]
    if options.quick:
        for course in courses:
            print(values_of(course.choice), course)
        return
    write(making, courses, options)


def make(making: Making, choices: list[Choice], processes: int) -> None:
    """Train each; every course is on disk as soon as it is there."""
    began = time.monotonic()
    making.progress.write_text("".join(whole_lines(making)))
    spawn = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    with ProcessPoolExecutor(processes, mp_context=spawn) as pool, making.progress.open("a") as file:
        training = [pool.submit(train, making, choice) for choice in choices]
        for count, done in enumerate(as_completed(training), 1):
            course = done.result()
            file.write(json.dumps(asdict(course)) + "\n")
            file.flush()
            took = time.monotonic() - began
            print(f"{count}/{len(choices)} {took:.0f} s {max(course.accuracy):.3f}", file=sys.stderr)


def whole_lines(making: Making) -> list[str]:
    """What earlier runs left; a last line that was cut short does not count."""
    if not making.progress.exists():
        return []
    return [line for line in making.progress.read_text().splitlines(keepends=True) if line.endswith("\n")]


def made(making: Making) -> dict[Choice, Course]:
    lines = map(json.loads, whole_lines(making))
    courses = [Course(**{**one, "choice": tuple(one["choice"])}) for one in lines]
    return {course.choice: course for course in courses}


@cache
def data(making: Making) -> Chosen:
    """Once a process."""
    keep_freed_memory()
    torch.set_num_threads(1)
    return Chosen(RunDir(making.folder / "prepared").read_prepared())


def train(making: Making, choice: Choice) -> Course:
    run_dir, chosen = RunDir(making.folder / "prepared"), data(making)
    run = run_dir.read_spec().model_copy(update={"spec": spec_of(making, choice)})
    materials = gather(run, chosen, None, lambda: False)
    facts = data_facts(run_dir.read_prepared())
    plan = choose_plan(run.spec, facts, device="cpu").on(ComputePlan(threads=1))
    began = time.process_time()
    points: dict[int, list[float]] = {}
    steps = [max(1, round(fraction * plan.total_steps)) for fraction in FRACTIONS]
    with short_training(materials, plan, run_dir, CPU) as training:
        if plan.ema_decay is not None:
            training.ema = Ema(training.network, plan.ema_decay)
        batches = training.feed.training(0)
        while training.state.step < plan.total_steps:
            train_step(training, next(batches))
            training.state.step += 1
            if training.state.step in steps:
                points[training.state.step] = evaluate(training)
    accuracy, loss, part_accuracy, part_loss = zip(*(points[step] for step in steps), strict=True)
    return Course(
        choice=choice,
        steps=plan.total_steps,
        images=plan.total_steps * plan.batch_size,
        accuracy=list(accuracy),
        loss=[finite(one) for one in loss],
        part_accuracy=list(part_accuracy),
        part_loss=[finite(one) for one in part_loss],
        cpu_seconds=round(time.process_time() - began, 2),
    )


def evaluate(training: Training) -> list[float]:
    """Accuracy and loss on all validation images, then both on the same few of them, as a rung sees them."""
    with training.ema.applied() if training.ema else nullcontext():
        judged = judge(training)
    training.model.train()
    few = torch.randperm(VALIDATION_IMAGES, generator=torch.Generator().manual_seed(0))[:PART_IMAGES]
    correct, losses = judged.correct, judged.losses
    numbers = [correct.mean(), losses.mean(), correct[few].mean(), losses[few].mean()]
    return [round(float(one), 5) for one in numbers]


def finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


def write(making: Making, courses: list[Course], options: argparse.Namespace) -> None:
    content = {
        "command": f"python -m benchmarks.search.table{'' if making.name == 'first' else f' --table {making.name}'}",
        "machine": machine(),
        "made": datetime.now(UTC).date().isoformat(),
        "torch": torch.__version__,
        "network": making.network,
        "processes": options.processes,
        "epochs": making.epochs,
        "images": {"train": TRAIN_IMAGES, "validation": VALIDATION_IMAGES, "part": PART_IMAGES, "side": SIDE},
        "cpu_seconds": round(sum(one.cpu_seconds for one in courses)),
        "grid": GRID,
        "fractions": FRACTIONS,
        "trainings": [asdict(one) for one in courses],
    }
    # Without a time in its header, the same table is the same file.
    file = TABLES[making.name]
    file.write_bytes(gzip.compress(json.dumps(content, separators=(",", ":")).encode(), mtime=0))
    print(f"{len(courses)} trainings, {file.stat().st_size / 1e3:.0f} kB in {file.relative_to(ROOT)}")


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    main()
