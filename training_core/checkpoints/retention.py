"""Which checkpoints of a trial stay: the best, the newest few, and those that somebody pinned."""

from __future__ import annotations

from dataclasses import dataclass

from training_core.checkpoints.manifest import MANIFEST, PINNED, age, candidates, is_folder, trial_folder
from training_core.checkpoints.train_state import TrainState
from training_core.contract.run_dir import RunSpec
from training_core.storage.store import Store


@dataclass(frozen=True)
class Swept:
    deleted: list[str]
    pinned: list[str]


def superfluous(state: TrainState, keep_last: int) -> list[str]:
    """Those that are neither the best nor among the last `keep_last`, in the order in which they were written."""
    last = set(state.kept[-keep_last:])
    return [path for path in state.kept if path not in last and path != state.best_checkpoint]


def sweep(store: Store, paths: list[str]) -> Swept:
    """Delete each, unless it is pinned."""
    pinned = [path for path in paths if store.exists(f"{path}/{PINNED}")]
    deleted = [path for path in paths if path not in pinned]
    for path in deleted:
        store.delete(path, MANIFEST)
    return Swept(deleted, pinned)


def clear_leftovers(store: Store, run: RunSpec) -> list[str]:
    """Remove what writers that were killed left half done; returns the complete checkpoints, oldest first.

    For the start of an attempt, before anything is written: whoever wrote for this trial before is gone.
    """
    complete = candidates(store, run)
    for path in store.folders(trial_folder(run)):
        if is_folder(path) and path not in complete:
            store.delete(path, MANIFEST)
    return sorted(complete, key=age)
