"""Loader throughput: 500 x 375 JPEGs to normalised float batches of 64, ours beside the usual loaders.

    python -m benchmarks.data.loader --rounds 5      (needs the extra `bench`)

Equal work: random resized crop to 224 (area 8-100 %, aspect 3:4 to 4:3), flip, antialiased bilinear resize, float32
normalised, two workers or two loader threads. Every measurement is a process of its own: one epoch to warm up, then
whole epochs for `--seconds`; CPU seconds are those of the whole process tree. The rounds are interleaved, the table
gives medians.
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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.data import contenders, limits
from benchmarks.data.machine import machine
from benchmarks.data.photographs import make_photographs

BASELINE = "torchvision ImageFolder + DataLoader"
RESULTS = Path(__file__).parent / "results" / "loader.md"
FIGURES = {"ours, original JPEG": 2.0, "ours, prepared JPEG": 4.0, "ours, prepared raw": 10.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=4.0, help="least wall time of one measurement")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "trainyard-loader-benchmark")
    parser.add_argument("--one", choices=contenders.ALL, help=argparse.SUPPRESS)
    parser.add_argument("--only", nargs="*", help="names that hold one of these words")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(contenders.ALL[options.one](options.folder), options.seconds)))
        return
    make_photographs(options.folder, options.images)
    contenders.make_forms(options.folder)
    names = [name for name in contenders.ALL if not options.only or any(word in name for word in options.only)]
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for number in range(options.rounds):
        for name in names:
            rounds[name].append(run_one(name, options))
            print(f"round {number + 1}  {name:40} {rounds[name][-1]}", flush=True)
    text = table(rounds, limits.measure(options.folder), options)
    print(text)
    if not options.only:
        RESULTS.write_text(text)


def run_one(name: str, options: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.data.loader", "--one", name]
    command += ["--folder", str(options.folder), "--seconds", str(options.seconds)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env={**os.environ, "PYTHONWARNINGS": "ignore"})
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def measure(epoch: Callable[[], Iterator[Any]], seconds: float) -> dict[str, float]:
    """Whole epochs until `seconds` are over; `epoch()` yields `(64, 3, 224, 224) float32` batches."""
    for batch in epoch():
        check(batch)
    cpu, wall, images = cpu_seconds(), time.perf_counter(), 0
    while time.perf_counter() - wall < seconds:
        for batch in epoch():
            images += len(batch)
    wall, cpu = time.perf_counter() - wall, cpu_seconds() - cpu
    return {"images": images, "wall": round(wall, 3), "cpu": round(cpu, 3)}


def check(batch: Any) -> None:
    """What comes out is what was asked for."""
    values = np.asarray(batch)
    assert values.shape == (64, 3, 224, 224), values.shape
    assert values.dtype == np.float32
    assert abs(values.mean()) < 1.5
    assert 0.3 < values.std() < 3


def cpu_seconds() -> float:
    """Of this process and all below it, those included that have ended and were waited for."""
    me = psutil.Process()
    times = [me.cpu_times(), *(one.cpu_times() for one in me.children(recursive=True))]
    return sum(one.user + one.system + one.children_user + one.children_system for one in times)


def table(rounds: dict[str, list[dict[str, float]]], bounds: dict[str, float], options: argparse.Namespace) -> str:
    rates = {
        name: (
            statistics.median(one["images"] / one["wall"] for one in results),
            statistics.median(one["images"] / one["cpu"] for one in results),
        )
        for name, results in rounds.items()
    }
    base = rates.get(BASELINE, (float("nan"), float("nan")))
    best_peer = max((cpu for name, (_, cpu) in rates.items() if not name.startswith("ours")), default=float("nan"))
    lines = [
        "# Loader throughput",
        "",
        f"`python -m benchmarks.data.loader --rounds {options.rounds} --images {options.images} "
        f"--seconds {options.seconds:g}` on {machine()}, {time.strftime('%Y-%m-%d')}; medians of {options.rounds} "
        f"interleaved rounds, load average {os.getloadavg()[0]:.1f} at the end (the benchmark alone makes about 2).",
        "",
        "| loader | images/s | images per CPU-second | wall, times ImageFolder | CPU, times ImageFolder | figure |",
        "|---|---:|---:|---:|---:|---|",
    ]
    for name, (wall, cpu) in rates.items():
        least = min(wall / base[0], cpu / base[1])
        figure = "" if name not in FIGURES else verdict(name, least, cpu, best_peer)
        lines.append(f"| {name} | {wall:,.0f} | {cpu:,.0f} | {wall / base[0]:.2f} | {cpu / base[1]:.2f} | {figure} |")
    lines += ["", "Limits of this machine, one thread, images per CPU-second:", ""]
    lines += [f"- {what}: {value:,.0f}" for what, value in bounds.items()]
    shares = limits.shares(rates, bounds)
    return "\n".join([*lines, "", *shares, "", contenders.NOTES, ""])


def verdict(name: str, ratio: float, cpu: float, best_peer: float) -> str:
    """By the lower one of both ratios."""
    wanted = FIGURES[name]
    met = "met" if ratio >= wanted else "MISSED"
    ahead = "ahead of every peer" if cpu > best_peer else "NOT ahead of every peer"
    return f"{wanted:g}x {met}; {ahead} per CPU-second"


if __name__ == "__main__":
    main()
