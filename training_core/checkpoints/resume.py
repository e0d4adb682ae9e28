"""Where a training goes on."""

from __future__ import annotations

from training_core.checkpoints import checkpoint
from training_core.checkpoints.checkpoint import Content
from training_core.checkpoints.manifest import Damaged, Foreign, candidates
from training_core.contract.errors import Failed, Reason
from training_core.contract.reporter import Reports
from training_core.contract.run_dir import RunSpec
from training_core.distributed.tensors import Tensors
from training_core.storage.store import Store


def choose(store: Store, run: RunSpec, reports: Reports) -> tuple[str, Content | None]:
    """The checkpoint to resume from and what it holds; an empty path for none.

    A damaged one is reported, and the newest sound one of the trial is taken. Raises `Failed(checkpoint_invalid)` for
    one that belongs to another spec.
    """
    if run.resume_from is None:
        return "", None
    wanted = run.resume_from.strip("/")
    try:
        return wanted, checkpoint.read(store, wanted, run)
    except Foreign as problem:
        raise _refused(wanted, problem) from problem
    except Damaged as problem:
        reports.alert("checkpoint_damaged", f"{wanted} cannot be used: {problem}", path=wanted)
    for path in candidates(store, run):
        if path != wanted and (content := _sound(store, path, run)) is not None:
            return path, content
    return "", None


def _sound(store: Store, path: str, run: RunSpec) -> Content | None:
    try:
        return checkpoint.read(store, path, run)
    except (Damaged, Foreign):
        return None


def read_chosen(store: Store, path: str, run: RunSpec) -> Content:
    """What another rank has chosen. Raises `Failed(checkpoint_invalid)`."""
    try:
        return checkpoint.read(store, path, run)
    except (Damaged, Foreign) as problem:
        raise _refused(path, problem) from problem


def _refused(path: str, problem: Exception) -> Failed:
    return Failed(Reason.CHECKPOINT_INVALID, f"{path} cannot be resumed: {problem}", "resume from another checkpoint")


def best_weights(store: Store, run: RunSpec, content: Content) -> Tensors | None:
    """The weights of the best model so far as of a checkpoint; None when they are gone or there was no evaluation."""
    state = content.state
    if state.best_checkpoint is None:
        return None
    if state.best_step == state.step:
        return content.model
    best = _sound(store, state.best_checkpoint, run)
    return None if best is None else best.model
