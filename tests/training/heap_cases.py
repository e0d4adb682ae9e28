"""What `training_core.processes.heap` changes in a process: `python -m tests.training.heap_cases` prints it as JSON."""

from __future__ import annotations

import json
import resource
import statistics
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

from training_core.processes.process import share_cores

share_cores()

import torch  # noqa: E402

from tests.training.plans import make_plan  # noqa: E402
from training_core.planner.table import Timing  # noqa: E402
from training_core.preflight.probing.step import ProbeStep  # noqa: E402
from training_core.processes.heap import give_back_freed_memory, keep_freed_memory  # noqa: E402

MIB = 2**20
# The first filters alone keep 17 MB of a batch.
PLENTY: dict[str, Any] = {"batch_size": 128, "image_size": 64}
STEPS = 11


def main() -> None:
    torch.set_num_threads(1)
    found = {"as it comes": faults_a_step()}
    resource.setrlimit(resource.RLIMIT_DATA, (2**40, resource.RLIM_INFINITY))
    keep_freed_memory()
    found["under a limit"] = faults_a_step()
    resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    keep_freed_memory()
    found["kept"] = faults_a_step()
    sys.stdout.write(json.dumps({"faults": found, "mib": given_back()}))


def faults_a_step() -> float:
    """Page faults of a usual step of the probes: the heap still grows by a piece in one or the other of the first."""
    kind = Timing(precision="fp32", memory_format="channels_last", threads=1, batch=PLENTY["batch_size"], seconds=0)
    step = ProbeStep(make_plan(**PLENTY), kind, torch.device("cpu"))
    seen = [page_faults()]
    for _ in range(STEPS):
        step.take(kind.batch, 1)
        seen.append(page_faults())
    return statistics.median(after - before for before, after in pairwise(seen))


def page_faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def given_back() -> dict[str, int]:
    """MiB of the process with a large tensor, when it is freed, and when freed memory is given back."""
    held = torch.ones(16 * MIB)
    sizes = [resident()]
    del held
    sizes.append(resident())
    give_back_freed_memory()
    return dict(zip(("held", "freed", "given back"), [*sizes, resident()], strict=True))


def resident() -> int:
    [line] = [one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith("VmRSS")]
    return int(line.split()[1]) // 1024


if __name__ == "__main__":
    main()
