"""Writes checkpoints while the training goes on, and keeps those that are worth it."""

from __future__ import annotations

import json
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch

from training_core.checkpoints import checkpoint
from training_core.checkpoints.checkpoint import HISTORY, STATE, Saved
from training_core.checkpoints.manifest import folder_of
from training_core.checkpoints.retention import Swept, clear_leftovers, superfluous, sweep
from training_core.checkpoints.snapshot import HostMemory, Snapshot
from training_core.checkpoints.train_state import TrainState
from training_core.checkpoints.writing import Writer
from training_core.contract.redaction import print_error
from training_core.contract.reporter import Reports
from training_core.contract.reports import CheckpointDeleted, CheckpointSaved, encode
from training_core.contract.run_dir import RunSpec
from training_core.distributed import sharding
from training_core.distributed.agreement import Agreement
from training_core.distributed.tensors import Tensors
from training_core.storage.store import Store


@dataclass(frozen=True)
class Live:
    """The tensors of a training where they are: `model` as it is judged, `raw` as it is trained if that differs."""

    model: Tensors
    raw: Tensors | None
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler


@dataclass(frozen=True)
class _OnItsWay:
    """What will be told of a checkpoint when it is there, and `before`: the last and the best one without it."""

    report: CheckpointSaved
    before: tuple[str | None, str | None]
    state: TrainState
    problems: list[str]
    written: Future[Saved | None]


@dataclass(frozen=True)
class _Sweeping:
    swept: Future[Swept]
    state: TrainState


class Checkpoints:
    """One checkpoint at a time is on its way; nothing is said of it, and none deleted for it, before it is there.

    Its methods belong to the thread that trains: on rank 0 or, where tensors are sharded, on all ranks.
    """

    def __init__(
        self,
        store: Store,
        run: RunSpec,
        reports: Reports,
        about: dict[str, Any],
        *,
        device: torch.device | None = None,
        keep_last: int = 1,
        agreement: Agreement | None = None,
    ) -> None:
        self._store, self._run, self._reports, self._keep_last = store, run, reports, keep_last
        # Another trial may have been told to go on from the end of the rung before; it has until the next one's end.
        self._spared = {run.resume_from.strip("/")} if run.rung is not None and run.resume_from else set[str]()
        self._agreement = agreement or Agreement(0, 1)
        self._writer = Writer(store, run, about, self._agreement)
        self._memory = HostMemory(device or torch.device("cpu"))
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoints")
        self._history = History(reports)
        self._on_its_way: _OnItsWay | None = None
        self._sweeping: _Sweeping | None = None
        self._told: dict[str, CheckpointSaved] = {}

    def begin(self, state: TrainState) -> None:
        """Clear what killed writers left; complete checkpoints that nobody was told of are up for deletion too."""
        complete = clear_leftovers(self._store, self._run)
        state.kept = [path for path in complete if path not in state.kept] + state.kept

    def save(self, live: Live, state: TrainState, epoch: float) -> None:
        """Copy all there is to copy, and have it written. Waits for the one before; raises as `settle` does."""
        path = folder_of(self._run, state.step)
        if path == state.last_checkpoint:
            return
        self.settle()
        before, is_best = (state.last_checkpoint, state.best_checkpoint), state.best_step == state.step
        state.last_checkpoint = path
        state.best_checkpoint = path if is_best else state.best_checkpoint
        state.kept.append(path)
        snapshot, problems = self._snapshot(live, state), list[str]()
        report = CheckpointSaved(
            path=path,
            step=state.step,
            epoch=round(epoch, 6),
            metrics=state.latest_metrics if state.latest_step == state.step else {},
            size_bytes=0,
            kept_because="best" if is_best else "last",
            files={},
            sha256={},
        )
        written = self._thread.submit(self._writer.write, path, snapshot, problems)
        self._on_its_way = _OnItsWay(report, before, state, problems, written)

    def _snapshot(self, live: Live, state: TrainState) -> Snapshot:
        optimizer, numbers, groups = checkpoint.optimizer_parts(live.optimizer)
        kinds = {"model": live.model, "raw": live.raw or {}, "optimizer": optimizer}
        parts = {kind: sharding.own_part(one, first=self._agreement.first) for kind, one in kinds.items() if one}
        copies, wait = self._memory.copy({kind: own for kind, (own, _) in parts.items()})
        extra = {"state": state.to_json(), "numbers": numbers, "groups": groups, "scaler": live.scaler.state_dict()}
        return Snapshot(
            step=state.step,
            tensors=copies,
            texts={STATE: json.dumps(extra, allow_nan=True).encode(), HISTORY: self._history.encoded()},
            sharded={kind: dimensions for kind, (_, dimensions) in parts.items() if dimensions},
            wait=wait,
        )

    def poll(self) -> None:
        """Tell of what is there by now, at the price of a look. Raises as `settle` does."""
        if self._on_its_way is not None and self._on_its_way.written.done():
            self._tell_saved(self._on_its_way)
        if self._sweeping is not None and self._sweeping.swept.done():
            self._tell_swept(self._sweeping)

    def settle(self) -> None:
        """Wait for all that is on its way. Raises `Failed(no_space)`, or what else kept it from the store."""
        if self._on_its_way is not None:
            self._tell_saved(self._on_its_way)
        if self._sweeping is not None:
            self._tell_swept(self._sweeping)

    def end(self) -> None:
        """As `settle`, for a training that may have failed: that is its cause, and ours goes to the log."""
        try:
            self.settle()
        except Exception as problem:  # noqa: BLE001  whatever it is
            print_error(problem)
        self._thread.shutdown()

    def _tell_saved(self, one: _OnItsWay) -> None:
        self._on_its_way = None
        try:
            saved = one.written.result()
        finally:
            for problem in one.problems:
                self._reports.alert("checkpoint_delayed", problem, step=one.report.step)
        if not self._agreement.first:
            return
        if saved is None:
            self._drop(one)
            return
        files = {"size_bytes": sum(saved.files.values()), "sha256": saved.sha256, "files": saved.files}
        self._tell(one.report.model_copy(update=files))
        self._reports.sync()
        self._sweep(one.state)

    def _drop(self, one: _OnItsWay) -> None:
        state, path = one.state, one.report.path
        state.kept.remove(path)
        state.last_checkpoint, state.best_checkpoint = one.before
        self._reports.alert(
            "nan", f"step {one.report.step} has no checkpoint: its weights are no numbers", step=one.report.step
        )

    def _tell(self, report: CheckpointSaved) -> None:
        self._reports.say(report)
        self._told[report.path] = report

    def _sweep(self, state: TrainState) -> None:
        paths = [path for path in superfluous(state, self._keep_last) if path not in self._spared]
        for path in state.kept:
            known = self._told.get(path)
            if known and known.kept_because == "best" and path not in {state.best_checkpoint, *paths}:
                self._tell(known.model_copy(update={"kept_because": "last"}))
        if paths:
            self._sweeping = _Sweeping(self._thread.submit(sweep, self._store, paths), state)

    def _tell_swept(self, one: _Sweeping) -> None:
        self._sweeping = None
        swept = one.swept.result()
        for path in swept.deleted:
            one.state.kept.remove(path)
            self._told.pop(path, None)
            self._reports.say(CheckpointDeleted(path=path))
        for path in swept.pinned:
            known = self._told.get(path)
            if known is not None and known.kept_because != "pinned":
                self._tell(known.model_copy(update={"kept_because": "pinned"}))


class History:
    """The points of the curves as lines of text, each encoded once."""

    def __init__(self, reports: Reports) -> None:
        self._reports, self._lines, self._count = reports, bytearray(), 0

    def encoded(self) -> bytes:
        history = self._reports.history
        if len(history) < self._count:  # told again from a checkpoint
            self._lines.clear()
            self._count = 0
        for point in history[self._count :]:
            self._lines += encode(point).encode() + b"\n"
        self._count = len(history)
        return bytes(self._lines)
