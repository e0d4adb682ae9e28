"""Whether the store has room for the checkpoints of a training, before its first step."""

from __future__ import annotations

import shutil

import torch

from training_core.checkpoints.safetensors_file import size_bytes
from training_core.contract.errors import Failed, Reason
from training_core.contract.reporter import Reports
from training_core.contract.run_dir import RunDir
from training_core.distributed.tensors import Tensors
from training_core.storage.store import Store

RUN_DIR_BYTES = 16 * 2**20  # reports, log, outcome
TIGHT = 2.0
MIB = 2**20


def checkpoint_bytes(weights: Tensors, optimizer: torch.optim.Optimizer, *, averaged: bool) -> int:
    """Of one checkpoint: the weights, once more where an average of them is kept, and the state of the optimizer."""
    return (2 if averaged else 1) * size_bytes(weights) + optimizer_bytes(optimizer)


def optimizer_bytes(optimizer: torch.optim.Optimizer) -> int:
    """What its state will take, before it has any."""
    learned = (one for group in optimizer.param_groups for one in group["params"])
    return _copies(optimizer) * int(sum(one.numel() * one.element_size() for one in learned))


def _copies(optimizer: torch.optim.Optimizer) -> int:
    """Tensors of the size of a parameter that the optimizer keeps for it; two for a kind that is not known here."""
    options = optimizer.param_groups[0]
    match type(optimizer).__name__:
        case "SGD":
            return int(options["momentum"] > 0)
        case "RMSprop":
            return 1 + int(options["momentum"] > 0) + int(options["centered"])
        case "Adam" | "AdamW":
            return 2 + int(options["amsgrad"])
        case "Adagrad" | "Lion" | "Muon":
            return 1
        case _:
            return 2


def check_room(one: int, *, keep_last: int, there: int, store: Store, run_dir: RunDir, reports: Reports) -> None:
    """Raises `Failed(no_space)` with the numbers, and alerts where there is less than twice what is needed.

    `one` is a checkpoint in bytes. The most that lies there at once: the newest `keep_last`, the best, and one that is
    being written. The checkpoints that are `there` already need no room.
    """
    kept = keep_last + 1
    needed = one * (kept + 1 - min(kept, there))
    _check_run_dir(run_dir)
    free = store.free_bytes()
    if free is None:
        return
    words = f"{needed / MIB:,.1f} MiB for checkpoints of {one / MIB:,.1f} MiB each, and {free / MIB:,.1f} MiB are free"
    if free < needed:
        raise Failed(
            Reason.NO_SPACE,
            f"the store needs {words}",
            "free some space, lower training.keep_last_checkpoints or choose a smaller model",
        )
    if free < TIGHT * needed:
        reports.alert("disk_tight", f"the store needs {words}", needed_bytes=needed, free_bytes=free)


def _check_run_dir(run_dir: RunDir) -> None:
    free = shutil.disk_usage(run_dir.path).free
    if free < RUN_DIR_BYTES:
        raise Failed(
            Reason.NO_SPACE,
            f"the worker has {free / MIB:,.1f} MiB left for reports and logs and needs {RUN_DIR_BYTES / MIB:,.0f} MiB",
            "free some space on the disk of the worker",
        )
