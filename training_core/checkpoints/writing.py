"""Carries a snapshot to the store. Runs beside the training, in the one thread for it."""

from __future__ import annotations

from typing import Any

from training_core.checkpoints import checkpoint
from training_core.checkpoints.checkpoint import Saved
from training_core.checkpoints.manifest import FileRecord, Manifest, spec_json, spec_sha256
from training_core.checkpoints.safetensors_file import all_finite
from training_core.checkpoints.snapshot import Snapshot
from training_core.contract.run_dir import RunSpec
from training_core.distributed.agreement import Agreement
from training_core.storage.retry import patiently
from training_core.storage.store import Store

JUDGED_KINDS = {"model", "raw"}


class Writer:
    """Writes the files of this rank, and on rank 0 the manifest when the files of all ranks are there."""

    def __init__(self, store: Store, run: RunSpec, about: dict[str, Any], agreement: Agreement) -> None:
        self._store, self._run, self._about, self._agreement = store, run, about, agreement

    def write(self, path: str, snapshot: Snapshot, problems: list[str]) -> Saved | None:
        """None when there are weights that are no numbers, which nobody could go on with, and on the other ranks.

        Raises as `patiently` does.
        """
        what = f"the checkpoint of step {snapshot.step}"
        try:
            records = patiently(what, lambda: self._write_tensors(path, snapshot), problems)
        except Exception as problem:
            self._agreement.tell(path, problem)
            raise
        self._agreement.tell(path, _told(records))
        if not self._agreement.first:
            return None
        parts = [records, *(_understood(one) for one in self._agreement.hear(path))]
        whole = {name: record for part in parts if part is not None for name, record in part.items()}
        if None in parts:
            return None
        manifest = Manifest(
            step=snapshot.step,
            spec_sha256=spec_sha256(self._run),
            spec=spec_json(self._run),
            files=whole,
            sharded=snapshot.sharded,
            about=self._about,
        )
        return patiently(what, lambda: checkpoint.finish(self._store, path, snapshot.texts, manifest), problems)

    def _write_tensors(self, path: str, snapshot: Snapshot) -> checkpoint.Records | None:
        snapshot.wait()
        if not all(all_finite(tensors) for kind, tensors in snapshot.tensors.items() if kind in JUDGED_KINDS):
            return None
        agreement = self._agreement
        return checkpoint.write_tensors(self._store, path, snapshot, agreement.rank, agreement.world_size)


def _told(records: checkpoint.Records | None) -> Any:
    return records and {name: record.model_dump() for name, record in records.items()}


def _understood(message: Any) -> checkpoint.Records | None:
    return message and {name: FileRecord(**record) for name, record in message.items()}
