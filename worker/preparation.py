"""One preparation for all trials of a job on this host: the later ones take over what the first one found or made.

<runs>/<job>/prepared-<digest>.json   Prepared, by the newest preparation that depended on the same parts of a spec

So all trials train on one version of the data, however it changes meanwhile, and wait for no listing of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from training_core.contract.errors import Failed
from training_core.contract.messages import Ticket
from training_core.contract.run_dir import Prepared, RunDir, write_atomically
from training_core.contract.spec import JobSpec
from training_core.contract.spec.conflicts import check_together
from training_core.data import cache


def take_over(runs: Path, ticket: Ticket, run_dir: RunDir) -> bool:
    """Whether the data of another trial is that of this one, too; then `prepared.json` is there as if made.

    What would be refused while it is prepared is left to the preparation, which says so.
    """
    if not of_a_search(runs, ticket) or not _goes_together(ticket.spec):
        return False
    try:
        prepared = Prepared.model_validate_json(_place(runs, ticket).read_bytes())
    except (FileNotFoundError, ValidationError):
        return False
    with in_use(prepared):
        if not cache.is_complete(prepared.folder) or not prepared.selection.exists():
            return False
        if _lacks_weights(prepared, ticket):
            return False
        run_dir.write_prepared(prepared.model_copy(update={"seconds": 0.0}))
    return True


def _lacks_weights(prepared: Prepared, ticket: Ticket) -> bool:
    """Whether the trial begins with a file that the one before did not fetch, since it went on from a checkpoint."""
    from_file = ticket.resume_from is None and "://" in (ticket.spec.model.weights or "")
    return from_file and (prepared.weights is None or not prepared.weights.exists())


def remember(runs: Path, ticket: Ticket, run_dir: RunDir) -> None:
    """Leave what this attempt prepared to later trials of its job."""
    write_atomically(_place(runs, ticket), run_dir.prepared.read_bytes())


def of_a_search(runs: Path, ticket: Ticket) -> bool:
    """Whether the job has other trials, as far as it can be told here; a plain one prepares anew each time."""
    return ticket.trial > 0 or ticket.rung is not None or (runs / ticket.job_id / "trial-1").exists()


@contextmanager
def in_use(prepared: Prepared) -> Iterator[None]:
    """Nobody evicts the folder meanwhile, however long the attempt waits for a slot."""
    use = cache.Use(prepared.folder.parent, prepared.folder.name)
    try:
        yield
    finally:
        use.close()


def _goes_together(spec: JobSpec) -> bool:
    try:
        check_together(spec)
    except Failed:
        return False
    return True


def _place(runs: Path, ticket: Ticket) -> Path:
    return runs / ticket.job_id / f"prepared-{_digest(ticket.spec)}.json"


def _digest(spec: JobSpec) -> str:
    """Of all that a preparation looks at: the data, and what it checks or fetches for a model that is no fresh one."""
    fresh = not spec.model.pretrained and spec.model.weights is None and spec.model.trainable == "all"
    training = {"image_size", "sampling", "distillation"} | (set() if fresh else {"augmentation"})
    parts: dict[str, bool | set[str]] = {"dataset": True, "training": training}
    parts |= {} if fresh else {"model": True}
    looked_at = spec.model_dump(mode="json", include=parts)
    return hashlib.sha256(json.dumps(looked_at, sort_keys=True).encode()).hexdigest()[:16]
