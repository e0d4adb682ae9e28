"""A real run in which one thing goes wrong from a step on: `python -m tests.training.faulty FAULT STEP RUN_DIR`.

Ranks are forked from this process and take the fault along. `raise-1` raises on rank 1, `nan` makes a weight no number,
`full` keeps the disk of the store full.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path

from training_core.processes.process import end_with_parent, leave, share_cores

share_cores()  # a thread of pyarrow would keep the ranks from being forked

import torch  # noqa: E402

from training_core.contract.run_dir import RunDir  # noqa: E402
from training_core.engine import loop  # noqa: E402
from training_core.engine.training import Training  # noqa: E402
from training_core.runtime import launch  # noqa: E402
from training_core.vision.prefetch import Batch  # noqa: E402


def raise_on_rank_1(training: Training) -> None:
    if training.ranks.rank == 1:
        raise LookupError("the fault of rank 1")


def nan(training: Training) -> None:
    with torch.no_grad():
        next(training.network.parameters()).view(-1)[0] = float("nan")


def full(training: Training) -> None:
    store = Path(training.materials.run.store.removeprefix("file://"))
    free = os.statvfs(store).f_bavail * os.statvfs(store).f_frsize
    with (store / "ballast").open("ab", buffering=0) as ballast:
        try:
            ballast.write(b"x" * max(0, free - 16384))
        except OSError as error:  # a checkpoint was written meanwhile: it is full all the same
            if error.errno != errno.ENOSPC:
                raise


FAULTS: dict[str, Callable[[Training], None]] = {"raise-1": raise_on_rank_1, "nan": nan, "full": full}


def main() -> int:
    end_with_parent()
    fault, step, run_dir = FAULTS[sys.argv[1]], int(sys.argv[2]), RunDir(Path(sys.argv[3]))
    original = loop.train_step

    def faulty(training: Training, batch: Batch) -> torch.Tensor:
        if training.state.step >= step:
            fault(training)
        return original(training, batch)

    loop.train_step = faulty
    return launch.launch(run_dir)


if __name__ == "__main__":
    leave(main())
