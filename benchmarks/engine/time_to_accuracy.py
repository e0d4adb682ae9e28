"""How long until a test accuracy is reached, on all of Fashion-MNIST and with the same network for everyone.

    python -m benchmarks.engine.time_to_accuracy [--seeds 5] [--quick]

Ours is a job whose every choice is `auto`, started as a worker starts it. The others are in `time_to_accuracy_peers`.
Seeds are interleaved: each runs all contenders, one after the other.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.data.fashion import PARTS, read_part
from benchmarks.data.machine import machine
from benchmarks.engine.arithmetic import limit_seconds
from training_core.contract.reports import FirstStep, Metric, PlanChosen, decode
from training_core.contract.run_dir import RunDir, RunSpec, complete_lines
from training_core.contract.spec import JobSpec

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parent / "results" / "time_to_accuracy.md"
OURS, TUTORIAL, LIGHTNING, REFERENCE = "Trainyard, all auto", "tutorial loop", "Lightning", "torchvision reference"
PEERS = {TUTORIAL: "tutorial", LIGHTNING: "lightning", REFERENCE: "reference"}
TARGETS, QUICK_TARGETS = (0.90, 0.92, 0.93), (0.70, 0.75)
QUICK_IMAGES = {"train": 6000, "test": 1000}


@dataclass
class Course:
    """What one contender reached with one seed, in seconds from the start of its process."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    first_step: float = 0.0
    points: list[tuple[float, float, int]] = field(default_factory=list)  # seconds, accuracy, images trained on

    def point_of(self, target: float) -> tuple[float, float, int]:
        return next((point for point in self.points if point[1] >= target), (math.inf, 0.0, 0))

    def accuracy_by(self, seconds: float) -> float:
        return max((accuracy for at, accuracy, _ in self.points if at <= seconds), default=0.0)


Results = dict[str, list[Course]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--limit", type=float, default=2.5, help="time of the tutorial loop and Lightning; ours is 1")
    parser.add_argument("--peers", nargs="*", choices=sorted(PEERS.values()), default=list(PEERS.values()))
    parser.add_argument("--quick", action="store_true", help="one seed, a tenth of the images, lower targets, no file")
    options = parser.parse_args()
    targets, seeds = (QUICK_TARGETS, 1) if options.quick else (TARGETS, options.seeds)
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(Path(name), targets, options.limit, QUICK_IMAGES if options.quick else {})
        results = bench.compete(seeds, [name for name, short in PEERS.items() if short in options.peers])
        table = make_table(results, targets, bench, options)
    print(table)
    if not options.quick:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(table)


class Bench:
    """The data as IDX files, and contenders that run on it in processes of their own."""

    def __init__(self, folder: Path, targets: tuple[float, ...], limit: float, images: dict[str, int]) -> None:
        self._folder, self._target, self._limit = folder, targets[-1], limit
        self.images = write_idx(folder, images)
        prepared = self._run_dir(0)
        subprocess.run([*LAUNCH, "--stage", "prepare", str(prepared.path)], cwd=ROOT, check=True)
        self.resolved: dict[str, Any] = {}
        self.workers = 0

    @property
    def network(self) -> str:
        return str(self.resolved["model.name"])

    def compete(self, seeds: int, peers: list[str]) -> Results:
        results: Results = {name: [] for name in (OURS, *peers)}
        for seed in range(seeds):
            ours = self.train_ours(seed)
            self._say(results, OURS, seed, ours)
            if seed == 0:
                self.workers = min((0, 2), key=self._first_epoch)
            for name in peers:
                limit = 1.0 if name == REFERENCE else self._limit
                course = self.train_peer(name, seed, limit * ours.seconds, self.workers)
                self._say(results, name, seed, course)
        return results

    def _say(self, results: Results, name: str, seed: int, course: Course) -> None:
        results[name].append(course)
        print(seed, name, course, file=sys.stderr)

    def train_ours(self, seed: int) -> Course:
        run_dir = self._run_dir(seed)
        course, started = timed([*LAUNCH, str(run_dir.path)])
        for report in [decode(line) for line, _ in complete_lines(run_dir.events, 0)]:
            match report:
                case PlanChosen():
                    self.resolved = report.resolved
                case FirstStep():
                    course.first_step = report.at - started
                case Metric(values={"validation/accuracy": accuracy}):
                    images = report.step * int(self.resolved["training.batch_size"])
                    course.points.append((report.at - started, accuracy, images))
        return course

    def train_peer(self, name: str, seed: int, seconds: float, workers: int) -> Course:
        result = self._folder / f"{PEERS[name]}-{seed}-{workers}-{time.time_ns()}.jsonl"
        command = [sys.executable, "-m", "benchmarks.engine.time_to_accuracy_peers", PEERS[name]]
        command += [str(self._folder), self.network, str(result), "--seed", str(seed), "--workers", str(workers)]
        command += ["--seconds", str(seconds), "--started", str(time.time())]
        course, started = timed(command + ([] if name == REFERENCE else ["--target", str(self._target)]))
        for line in map(json.loads, result.read_text().splitlines()):
            if "first_step" in line:
                course.first_step = line["at"] - started
            else:
                course.points.append((line["at"] - started, line["accuracy"], line["images"]))
        return course

    def _first_epoch(self, workers: int) -> float:
        """Seconds for each image of a short training with so many loader processes."""
        course = self.train_peer(TUTORIAL, 0, 20.0, workers)
        at, _, images = course.points[-1]
        return (at - course.first_step) / images

    def _run_dir(self, seed: int) -> RunDir:
        run_dir = RunDir(self._folder / f"run-{seed}-{time.time_ns()}")
        run_dir.path.mkdir()
        cleaning = {"exact_duplicates": "flag", "leakage": "flag"}  # the others train and judge on all images
        dataset = {"uri": f"file://{self._folder}/idx", "cleaning": cleaning}
        spec = {"task": "image-classification", "dataset": dataset, "training": {"seed": seed}}
        run_dir.write_spec(
            RunSpec(
                spec=JobSpec.model_validate(spec),
                job_id=run_dir.path.name,
                store=f"file://{self._folder}/store",
                cache_dir=self._folder / "cache",
                data_roots=[self._folder],
            )
        )
        return run_dir


LAUNCH = [sys.executable, "-m", "training_core.runtime.launch"]


def timed(command: list[str]) -> tuple[Course, float]:
    """Run to the end; also the wall time at which it was started."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.time()
    done = subprocess.run(command, cwd=ROOT, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    seconds, after = time.time() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(done.stdout.decode(errors="replace"))
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Course(seconds=seconds, cpu_seconds=cpu), started


def write_idx(folder: Path, most: dict[str, int]) -> int:
    """The 10,000 test images as `validation` for us, and as torchvision wants them; how many train."""
    raw = folder / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    (folder / "idx").mkdir()
    train = 0
    for split, part in PARTS.items():
        images, labels = (array[: most.get(split)] for array in read_part(part))
        ours = folder / "idx" / ("train" if split == "train" else "validation")
        for kind, array in (("images-idx3-ubyte", images), ("labels-idx1-ubyte", labels)):
            header = struct.pack(f">{1 + array.ndim}I", 0x0800 + array.ndim, *array.shape)
            (raw / f"{part}-{kind}").write_bytes(header + array.tobytes())
            ours.with_name(f"{ours.name}-{kind}").hardlink_to(raw / f"{part}-{kind}")
        train = len(images) if split == "train" else train
    return train


def make_table(results: Results, targets: tuple[float, ...], bench: Bench, options: argparse.Namespace) -> str:
    heads = "".join(f" to {target:.2f}, s (worst) |" for target in targets)
    lines = [
        "# Time to accuracy: Fashion-MNIST",
        "",
        f"`python -m benchmarks.engine.time_to_accuracy --seeds {len(results[OURS])} --limit {options.limit:g} --peers "
        f"{' '.join(PEERS[name] for name in results if name != OURS)}` on {machine()}, "
        f"torch {torch.__version__}, {time.strftime('%Y-%m-%d')}.",
        "",
        f"{bench.images:,} training images; accuracy on the test images after each epoch, the evaluations inside the "
        f"clock for everyone. All train {bench.network}. Seconds from the start of the process, imports included; "
        "in brackets from the first step. Medians over the seeds and the worst one; - is not reached in at least half "
        f"of them. Ours reads prepared data; the others read torchvision's FashionMNIST with {bench.workers} workers "
        f"(the faster of 0 and 2). The tutorial loop and Lightning train with Adam at 0.001 in batches of 64 and "
        f"have {options.limit:g} times as long as ours"
        f"{'; the torchvision reference recipe has as long as ours' if REFERENCE in results else ''}.",
        "",
        f"| contender |{heads} CPU s | accuracy when ours ends | best accuracy |",
        "|---|" + "---|" * (len(targets) + 3),
    ]
    for name, courses in results.items():
        cells = [_reached(courses, target) for target in targets]
        # The reference has trained as long as ours when its last evaluation begins.
        ends = [math.inf if name == REFERENCE else ours.seconds for ours in results[OURS]]
        equal = [one.accuracy_by(end) for one, end in zip(courses, ends, strict=True)]
        best = [one.accuracy_by(math.inf) for one in courses]
        cpu = statistics.median(one.cpu_seconds for one in courses)
        lines.append(f"| {name} | {' | '.join(cells)} | {cpu:.0f} | {_spread(equal)} | {_spread(best)} |")
    images = [statistics.median(one.point_of(target)[2] for one in results[OURS]) for target in targets]
    cells = [f"{limit_seconds(bench.network, count):.1f}" for count in images]
    lines.append(f"| limit: our arithmetic at the fastest rate seen here | {' | '.join(cells)} | | | |")
    chosen = ", ".join(f"{key.removeprefix('training.')} {value}" for key, value in bench.resolved.items())
    return "\n".join([*lines, "", f"What `auto` chose: {chosen}."]) + "\n"


def _reached(courses: list[Course], target: float) -> str:
    times = [one.point_of(target)[0] for one in courses]
    steps = [one.point_of(target)[0] - one.first_step for one in courses]
    count = sum(math.isfinite(each) for each in times)
    median = statistics.median_high(times)
    if not math.isfinite(median):
        return f"- ({count} of {len(times)})"
    return f"{median:.1f} [{statistics.median_high(steps):.1f}] ({_number(max(times))})"


def _number(value: float) -> str:
    return f"{value:.1f}" if math.isfinite(value) else "never"


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.4f} ({min(values):.4f} - {max(values):.4f})"


if __name__ == "__main__":
    main()
