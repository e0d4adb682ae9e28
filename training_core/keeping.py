"""Which checkpoints are written, which are kept, and where a training goes on."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from training_core import checkpoint
from training_core.checkpoint import Content, Damaged
from training_core.events import CheckpointDeleted, CheckpointSaved
from training_core.reports import Reports
from training_core.rundir import RunSpec
from training_core.state import TrainState
from training_core.store import Store
from training_core.tensors import Tensors


class Checkpoints:
    """Keeps the best checkpoint and the newest one; belongs to rank 0."""

    def __init__(self, store: Store, run: RunSpec, reports: Reports, about: dict[str, Any]) -> None:
        self._store, self._run, self._reports, self._about = store, run, reports, about

    def save(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        state: TrainState,
        epoch: float,
    ) -> None:
        """Write the state as it is now, report it, then remove what is neither the best nor the newest any more."""
        path = checkpoint.folder_of(self._run, state.step)
        if path == state.last_checkpoint:
            return
        is_best = state.best_step == state.step
        state.last_checkpoint = path
        state.best_checkpoint = path if is_best else state.best_checkpoint
        state.kept.append(path)
        tensors, groups = checkpoint.optimizer_tensors(optimizer)
        content = Content(
            checkpoint.model_tensors(model), tensors, groups, scaler.state_dict(), state, self._reports.history
        )
        saved = checkpoint.write(self._store, path, content, self._run, self._about)
        self._reports.say(
            CheckpointSaved(
                path=path,
                step=state.step,
                epoch=round(epoch, 6),
                metrics=state.latest_metrics,
                size_bytes=sum(saved.files.values()),
                sha256=saved.sha256,
                kept_because="best" if is_best else "last",
                files=saved.files,
            )
        )
        self._reports.sync()
        for old in [one for one in state.kept if one not in {path, state.best_checkpoint}]:
            self._store.delete(old, checkpoint.MANIFEST)
            state.kept.remove(old)
            self._reports.say(CheckpointDeleted(path=old))


def choose(store: Store, run: RunSpec, reports: Reports) -> str:
    """The checkpoint to resume from; empty for none. A damaged one is reported and the newest sound one is taken."""
    if run.resume_from is None:
        return ""
    wanted = run.resume_from.strip("/")
    problem = _problem(store, wanted, run)
    if problem is None:
        return wanted
    reports.alert("checkpoint_damaged", f"{wanted} cannot be used: {problem}", path=wanted)
    for path in checkpoint.candidates(store, run):
        if path != wanted and _problem(store, path, run) is None:
            return path
    return ""


def _problem(store: Store, path: str, run: RunSpec) -> str | None:
    try:
        checkpoint.read(store, path, run)
    except Damaged as problem:
        return str(problem)
    return None


def best_weights(store: Store, run: RunSpec, content: Content) -> Tensors | None:
    """The weights of the best model so far as of a checkpoint; None when they are gone or there was no evaluation."""
    state = content.state
    if state.best_checkpoint is None:
        return None
    if state.best_step == state.step:
        return content.model
    try:
        return checkpoint.read(store, state.best_checkpoint, run).model
    except Damaged:
        return None
