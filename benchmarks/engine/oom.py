"""A rank that runs out of memory, and what that does to the loss curve: two ranks of which one gets too little.

    python -m benchmarks.engine.oom
    python -m benchmarks.engine.oom --quick

The kernel refuses rank 1 what goes beyond a limit (RLIMIT_DATA), from the first step on. What others do is to halve
the batch: the curve of that training stands beside.
"""

from __future__ import annotations

import argparse
import ctypes
import resource
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.data.machine import machine
from benchmarks.engine.steps import batch_of, forked, make_training  # first: it is a good neighbour

# isort: split
import torch

from training_core.distributed.ranks import Ranks
from training_core.engine.step import train_step

RESULTS = Path(__file__).parent / "results" / "oom.md"
CASE: dict[str, Any] = {"model": "small_cnn", "image_size": 64, "channels": 1, "batch_size": 128}
MIB = 2**20
M_MMAP_THRESHOLD, MMAP_FROM_BYTES = -3, 2**18  # malloc.h


def curve(ranks: Ranks, steps: int, spare_mib: int | None, **changes: Any) -> dict[str, Any]:
    """The mean loss of each step, and each recovery."""
    with tempfile.TemporaryDirectory() as name:
        training = make_training(Path(name), ranks, **{**CASE, **changes})
        batches = [batch_of(training, step) for step in range(steps)]
        if spare_mib is not None and ranks.rank == 1:
            # Else glibc keeps freed blocks in its heap, where a limit on addresses counts them although they are free.
            ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, MMAP_FROM_BYTES)
            limit = _data_bytes() + spare_mib * MIB
            resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        losses = []
        for batch in batches:
            part = train_step(training, batch)
            losses.append(float(ranks.sum(part.double())))
            training.state.step += 1
        told = training.reports.told  # type: ignore[attr-defined]
    recovered = [(one.step, one.micro_batch_before, one.micro_batch_after) for one in told]
    return {"losses": losses, "recovered": recovered}


def _data_bytes() -> int:
    [line] = [one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith("VmData")]
    return int(line.split()[1]) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="six steps; keeps no result")
    quick = parser.parse_args().quick
    steps = 6 if quick else 60
    [whole, _] = forked(2, lambda ranks: curve(ranks, steps, None))
    [halved, _] = forked(2, lambda ranks: curve(ranks, steps, None, batch_size=CASE["batch_size"] // 2))
    rows = [
        "# Out of memory on one of two ranks\n",
        f"`python -m benchmarks.engine.oom`; {machine()}; torch {torch.__version__}; small_cnn, a batch of "
        f"{CASE['batch_size']} images of {CASE['image_size']} px on two ranks over loopback, {steps} steps.\n",
        "| rank 1 may take besides | recoveries (step: micro-batch) | largest difference of the loss | last loss |",
        "|---|---|---:|---:|",
        f"| all it wants | none | 0 | {whole['losses'][-1]:.6f} |",
    ]
    for spare in (60, 50, 40):
        [found, _] = forked(2, lambda ranks, spare=spare: curve(ranks, steps, spare))  # type: ignore[misc]
        told = ", ".join(f"{step}: {before} to {after}" for step, before, after in found["recovered"]) or "none"
        difference = max(abs(one - other) for one, other in zip(found["losses"], whole["losses"], strict=True))
        rows.append(f"| {spare} MiB | {told} | {difference:.1e} | {found['losses'][-1]:.6f} |")
    difference = max(abs(one - other) for one, other in zip(halved["losses"], whole["losses"], strict=True))
    rows.append(f"| (half of the batch instead) | | {difference:.1e} | {halved['losses'][-1]:.6f} |")
    text = "\n".join(rows) + "\n"
    print(text)
    if not quick:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(text)


if __name__ == "__main__":
    main()
