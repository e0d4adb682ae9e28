"""SIGKILL at random moments of a preparation: afterwards the prepared form is not there, or complete and identical.

    apt-get install dataset-fashion-mnist
    python -m benchmarks.data.kill --kills 30 --seed 0

The 10,000 test images of Fashion-MNIST as PNG files, in shards of 512, so that a moment may fall anywhere: while it is
listed, decoded, written, sealed, while copies are looked for, while it is published, selected or reported. Each killed
preparation is then run again to its end.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from benchmarks.data.fashion import make_png_folder
from training_core.contract.reports import AnyReport
from training_core.contract.run_dir import RunSpec
from training_core.contract.spec import JobSpec
from training_core.vision import shards
from training_core.vision.prepare import prepare

RESULTS = Path(__file__).parent / "results" / "kill.md"
SHARD_SAMPLES = 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--prepare", type=Path, nargs=2, metavar=("DATA", "CACHE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.prepare:
        prepare_here(*arguments.prepare)
        return
    with tempfile.TemporaryDirectory() as folder:
        text = kill_many(Path(folder), arguments.kills, arguments.seed)
    print(text)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(text)


def prepare_here(data: Path, cache: Path) -> None:
    shards.SHARD_SAMPLES = SHARD_SAMPLES
    spec = JobSpec.model_validate({"task": "image-classification", "dataset": {"uri": f"file://{data}"}})
    run = RunSpec(spec=spec, store=f"file://{cache}/store", cache_dir=cache, data_roots=[data])
    reports: list[AnyReport] = []
    print("ready", flush=True)
    prepare(run, lambda: False, reports.append)


def start(data: Path, cache: Path) -> subprocess.Popen[str]:
    """Returns when the process has imported everything and begins."""
    command = [sys.executable, "-m", "benchmarks.data.kill", "--prepare", str(data), str(cache)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def digest(folder: Path) -> str:
    """Of every byte of the prepared form and of its selections."""
    content = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")):
        content.update(f"{path.relative_to(folder)}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    return content.hexdigest()


def kill_many(folder: Path, kills: int, seed: int) -> str:
    data = make_png_folder(folder / "data", ("test",))
    began = time.perf_counter()
    with start(data, folder / "undisturbed") as process:
        began = time.perf_counter()
        assert process.wait() == 0
    seconds = time.perf_counter() - began
    [meta] = (folder / "undisturbed").glob("*/meta.json")
    version, expected = meta.parent.name, digest(meta.parent)
    chance, counts = random.Random(seed), Counter[str]()
    number = 0
    while counts["killed"] < kills:
        number += 1
        cache, moment = folder / f"cache-{number}", chance.uniform(0, 1.05 * seconds)
        with start(data, cache) as process:
            try:
                process.wait(moment)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
        if process.returncode != -signal.SIGKILL:
            counts["ended before"] += 1
            continue
        counts["killed"] += 1
        shards_left = len(list(cache.glob(".*.tmp/part-*.json")))
        counts["left complete shards"] += shards_left > 0
        if (cache / version / "meta.json").exists():
            counts["there"] += 1
        else:
            counts["not there"] += not (cache / version).exists()
        with start(data, cache) as process:
            counts["run again without an error"] += process.wait() == 0
        counts["identical afterwards"] += digest(cache / version) == expected
        counts["leftovers"] += len(list(cache.glob(".????????????*.tmp")))
        print(number, f"{moment:.2f} s", dict(counts), file=sys.stderr)
    return table(counts, kills, seed, seconds)


def table(counts: Counter[str], kills: int, seed: int, seconds: float) -> str:
    return f"""# SIGKILL at {kills} random moments of a preparation

`python -m benchmarks.data.kill --kills {kills} --seed {seed}`; {platform.machine()}, {os.cpu_count()} cores, \
Python {platform.python_version()}.
10,000 PNG files, {SHARD_SAMPLES} to a shard; undisturbed it takes {seconds:.1f} s.

| | |
|---|---:|
| killed before the end | {counts["killed"]} |
| moments that came too late, not counted | {counts["ended before"]} |
| prepared form not there afterwards | {counts["not there"]} |
| prepared form there afterwards | {counts["there"]} |
| neither (half of it under its name) | {kills - counts["there"] - counts["not there"]} |
| complete shards left for the next try | {counts["left complete shards"]} |
| run again without an error | {counts["run again without an error"]} |
| every byte as undisturbed afterwards | {counts["identical afterwards"]} |
| half-made folders left in the end | {counts["leftovers"]} |
"""


if __name__ == "__main__":
    main()
