"""What it costs that a step gives its memory back to the kernel, on this CPU.

    python -m benchmarks.engine.heap [--quick]

The step of the planner's probes (forward, backward, AdamW) in a process of its own for each case and each way: glibc as
it comes, and `training_core.processes.heap.keep_freed_memory`. The ways take turns.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.data.machine import machine
from benchmarks.engine.planner_regret import SETTINGS, Setting, Way, timing_of
from training_core.contract.spec import JobSpec
from training_core.planner.plan import choose_plan
from training_core.planner.recipe import DataFacts
from training_core.processes.heap import keep_freed_memory
from training_core.processes.process import share_cores

RESULTS = Path(__file__).parent / "results" / "heap.md"
WAYS, ROUNDS, STEPS, SECONDS = ("as it comes", "kept"), 3, 30, 3.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two cases, one round")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(SETTINGS[int(arguments.one[0])], arguments.one[1])))
        return
    numbers = [0, 4] if arguments.quick else range(len(SETTINGS))
    rounds = 1 if arguments.quick else ROUNDS
    content = table({number: {way: [alone(number, way) for _ in range(rounds)] for way in WAYS} for number in numbers})
    print(content)
    if not arguments.quick:
        RESULTS.write_text(content)


def alone(number: int, way: str) -> tuple[float, float, float]:
    command = [sys.executable, "-m", "benchmarks.engine.heap", "--one", str(number), way]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    step, faults, peak = json.loads(done.stdout)
    return step, faults, peak


def measure(setting: Setting, way: str) -> tuple[float, float, float]:
    """Median seconds of a step, page faults of one, and the most bytes that the process had."""
    share_cores()
    if way == "kept":
        keep_freed_memory()
    import torch  # noqa: PLC0415  after the setting

    from training_core.preflight.probing.step import ProbeStep  # noqa: PLC0415

    spec = JobSpec.model_validate(
        {
            "task": "image-classification",
            "dataset": {"uri": "file:///none"},
            "model": {"name": setting.model},
            "training": {"batch_size": setting.batch, "optimizer": {"name": "adamw"}},
        }
    )
    plan = choose_plan(spec, DataFacts(50_000, 10, setting.channels, setting.side, ""), device="cpu")
    step = ProbeStep(plan, timing_of(Way("fp32", "channels_last", setting.cores)), torch.device("cpu"))
    for _ in range(3):
        step.take(setting.batch, setting.cores)
    taken: list[float] = []
    faults, began = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.perf_counter()
    while len(taken) < STEPS and (len(taken) < 5 or time.perf_counter() - began < SECONDS):
        taken.append(step.take(setting.batch, setting.cores))
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return statistics.median(taken), (usage.ru_minflt - faults) / len(taken), usage.ru_maxrss * 1024


def table(found: dict[int, dict[str, list[tuple[float, float, float]]]]) -> str:
    lines = [
        "## A step that keeps its memory, and one that gives it back",
        "",
        "| case | step as glibc comes (ms) | kept (ms) | faster | page faults a step | kept | most memory | kept |",
        "|---|---|---|---|---|---|---|---|",
    ]
    gains = []
    for number, ways in found.items():
        (step, faults, peak), (kept, kept_faults, kept_peak) = (
            tuple(statistics.median(one[part] for one in ways[way]) for part in range(3)) for way in WAYS
        )
        gains.append(step / kept)
        lines.append(
            f"| {SETTINGS[number]} | {step * 1e3:.1f} | {kept * 1e3:.1f} | **{gains[-1]:.2f}x** | {faults:,.0f} "
            f"| {kept_faults:,.0f} | {peak / 2**20:,.0f} MiB | {kept_peak / 2**20:,.0f} MiB |"
        )
    lines += [
        "",
        f"Median {statistics.median(gains):.2f}x, {min(gains):.2f} to {max(gains):.2f}x. fp32, channels_last, all "
        "cores, the whole batch; medians of processes that took turns.",
        "",
        f"`python -m benchmarks.engine.heap` on {machine()}.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
