"""Optimizer steps on made-up images without a run around them, by one process or by ranks forked from it."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.engine.steps import ALONE, CPU, assemble, meet  # first: it is a good neighbour

# isort: split
import torch

from tests.training.plans import make_plan
from training_core.contract.compute_plan import ComputePlan
from training_core.contract.run_dir import RunSpec
from training_core.contract.spec import JobSpec
from training_core.distributed.ranks import Ranks
from training_core.engine.step import train_step
from training_core.engine.training import Training
from training_core.vision.prefetch import Batch

__all__ = ["ALONE", "CPU"]

M_MMAP_THRESHOLD, MMAP_FROM_BYTES = -3, 2**18  # malloc.h
SPEC = {"task": "image-classification", "dataset": {"uri": "file:///nowhere"}, "model": {"name": "small_cnn"}}


def make_training(
    folder: Path, ranks: Ranks = ALONE, *, compute: dict[str, Any] | None = None, network: Any = None, **plan: Any
) -> Training:
    """Of one grey network, with a cache in `folder`."""
    computed = ComputePlan(**{"ranks": ranks.world_size, "precision": "fp32", **(compute or {})})
    planned = make_plan(**{"augmentation": "none", "gradient_clipping": None, "ema_decay": None, **plan}).on(computed)
    run = RunSpec(spec=JobSpec.model_validate(SPEC), store="file:///nowhere", cache_dir=folder / "cache")
    return assemble(folder, planned, run, ranks, network=network)


def batch_of(training: Training, step: int) -> Batch:
    """This rank's share of a batch that the step decides."""
    plan, ranks = training.plan, training.ranks
    random = torch.Generator().manual_seed(step)
    shape = (plan.batch_size, plan.channels, plan.image_size, plan.image_size)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=random)
    labels = torch.randint(0, plan.classes, (plan.batch_size,), generator=random)
    mine = slice(ranks.rank, None, ranks.world_size)
    return Batch(images[mine].contiguous(memory_format=torch.channels_last), labels[mine])


def one_step(training: Training) -> float:
    """The mean loss over all ranks."""
    part = train_step(training, batch_of(training, training.state.step))
    training.state.step += 1
    return float(training.ranks.sum(part.double()))


def forked(count: int, case: Callable[[Ranks, Path], Any], folder: Path) -> list[Any]:
    """What each of `count` ranks returns, or the error it ends with."""
    with tempfile.TemporaryDirectory(dir=folder) as meeting:
        children = [_fork(rank, count, case, Path(meeting)) for rank in range(count)]
        results = []
        for rank, child in enumerate(children):
            os.waitpid(child, 0)
            file = Path(meeting) / f"{rank}.json"
            results.append(json.loads(file.read_text()) if file.exists() else {"error": "no word"})
        return results


def _fork(rank: int, count: int, case: Callable[[Ranks, Path], Any], folder: Path) -> int:
    child = os.fork()
    if child:
        return child
    torch.set_num_threads(1)
    try:
        result = case(meet(rank, count, folder), folder)
    except Exception as error:  # noqa: BLE001  it is what the test wants to see
        result = {"error": type(error).__name__, "message": str(error), "reason": getattr(error, "reason", None)}
    (folder / f"{rank}.tmp").write_text(json.dumps(result))
    (folder / f"{rank}.tmp").rename(folder / f"{rank}.json")
    os._exit(0)


def allow(more: int) -> None:
    """From now on the kernel refuses to give this process more than `more` bytes beside those that it has.

    What is freed goes back at once: glibc would keep blocks of up to 32 MiB in its heap, where a limit on addresses
    counts them although they are free, and pieces of any size would then be too large.
    """
    ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, MMAP_FROM_BYTES)
    [line] = [one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith("VmData")]
    limit = int(line.split()[1]) * 1024 + more
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
