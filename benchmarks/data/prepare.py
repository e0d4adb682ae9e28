"""Cold and found preparation of the full Fashion-MNIST, 70,000 PNG files, beside decoding the same files by Pillow.

    apt-get install dataset-fashion-mnist
    python -m benchmarks.data.prepare --rounds 5

Every measurement is a process of its own; imports are not counted, CPU seconds are those of all its threads. The rounds
are interleaved, the table gives medians. The files are in the page cache. Pillow's row does what torchvision's
ImageFolder does for each image (open, decode, convert to RGB) and nothing else: it stores, measures and checks nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.data.fashion import ORIGINAL, make_png_folder
from training_core.contract.reports import AnyReport, DataReady
from training_core.contract.run_dir import RunSpec
from training_core.contract.spec import JobSpec
from training_core.vision.prepare import prepare

RESULTS = Path(__file__).parent / "results" / "prepare.md"
IMAGES = 70_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where the data lies or will be made; a temporary one without")
    parser.add_argument("--measure", choices=CONTENDERS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(CONTENDERS[arguments.measure](arguments.folder)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        make_png_folder(folder)
        make_idx_folder(folder)
        measured: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS}
        for number in range(arguments.rounds):
            for name, values in measured.items():
                values.append(measure(name, folder))
                print(number, name, values[-1], file=sys.stderr)
        text = table(measured, arguments.rounds)
    print(text)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(text)


def measure(name: str, folder: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.data.prepare", "--folder", str(folder), "--measure", name]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def make_idx_folder(folder: Path) -> None:
    (folder / "idx").mkdir(exist_ok=True)
    for path in ORIGINAL.glob("*.gz"):
        shutil.copy(path, folder / "idx" / path.name)


def timed(work: Callable[[], Any]) -> dict[str, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


def run_of(folder: Path, data: str, cache: Path) -> RunSpec:
    dataset = {"uri": f"file://{folder / data}"}
    spec = JobSpec.model_validate({"task": "image-classification", "dataset": dataset})
    return RunSpec(spec=spec, store=f"file://{cache}/store", cache_dir=cache, data_roots=[folder])


def cold(folder: Path, data: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory(dir=folder) as cache:
        reports: list[AnyReport] = []
        result = timed(lambda: prepare(run_of(folder, data, Path(cache)), lambda: False, reports.append))
    assert isinstance(reports[-1], DataReady)
    assert sum(reports[-1].images.values()) > 0.99 * IMAGES
    assert reports[-1].prepared == "made"
    return result


def found(folder: Path) -> dict[str, float]:
    """A second job: the source is listed anew, and everything else is there."""
    run = run_of(folder, "images", folder / "kept-cache")
    reports: list[AnyReport] = []
    prepare(run, lambda: False, reports.append)
    result = timed(lambda: prepare(run, lambda: False, reports.append))
    assert isinstance(reports[-1], DataReady)
    assert reports[-1].prepared == "found"
    return result


def pillow(folder: Path) -> dict[str, float]:
    import numpy as np  # noqa: PLC0415
    from PIL import Image  # noqa: PLC0415

    paths = [str(path) for path in sorted((folder / "images").rglob("*.png"))]

    def decode_all() -> None:
        for path in paths:
            with open(path, "rb") as file:
                np.asarray(Image.open(file).convert("RGB"))

    return timed(decode_all)


CONTENDERS: dict[str, Callable[[Path], dict[str, float]]] = {
    "Pillow decodes the PNG files, as ImageFolder does, and no more": pillow,
    "ours, cold, from the PNG files": lambda folder: cold(folder, "images"),
    "ours, cold, from the IDX files": lambda folder: cold(folder, "idx"),
    "ours, found again (PNG files)": found,
}


def table(measured: dict[str, list[dict[str, float]]], rounds: int) -> str:
    lines = [
        "# Preparing Fashion-MNIST: 70,000 images of 28 x 28",
        "",
        f"`python -m benchmarks.data.prepare --rounds {rounds}`, medians of {rounds} interleaved rounds;",
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}.",
        "Preparing means: list, read, decode in full, check, measure, hash, look for copies, pack, select and report.",
        "",
        "| | wall s | CPU s | images per CPU-second |",
        "|---|---:|---:|---:|",
    ]
    for name, values in measured.items():
        wall, cpu = (statistics.median(one[key] for one in values) for key in ("wall", "cpu"))
        lines.append(f"| {name} | {wall:.2f} | {cpu:.2f} | {IMAGES / cpu:,.0f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
