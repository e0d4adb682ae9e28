"""Status says where a job is, reason says why. This page is the whole map from the one to the other.

    queued -> preparing -> running -> succeeded | failed | cancelled
       ^_________|____________|   on loss, shutdown of the worker, a died process, no free slot
       |_________|____________|_> paused -> queued   when a client asks

A trial of a search may also wait at a rung (`paused`, `rung_reached`), and end as `pruned`, which is no failure.
Terminal states never change. `docs/job-lifecycle.md` draws it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, NamedTuple

from training_core.contract.errors import Reason
from training_core.contract.spec import Work


class Status(StrEnum):
    QUEUED = "queued"
    PREPARING = "preparing"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    PRUNED = "pruned"  # a trial alone


TERMINAL = frozenset({Status.SUCCEEDED, Status.FAILED, Status.CANCELLED, Status.PRUNED})
HELD = frozenset({Status.PREPARING, Status.RUNNING})  # an attempt has the job; `slots.py` says when it holds devices

Retry = Literal["never", "counted", "free"]


class Verdict(NamedTuple):
    """The status that a reason leads to. `counted` retries end after `losses_limit` without a new checkpoint."""

    status: Status
    retry: Retry = "never"


REASONS: dict[Reason, Verdict] = {
    Reason.SUBMITTED: Verdict(Status.QUEUED),
    Reason.DISPATCHED: Verdict(Status.PREPARING),
    Reason.TRAINING: Verdict(Status.RUNNING),
    Reason.COMPLETED: Verdict(Status.SUCCEEDED),
    Reason.EARLY_STOPPED: Verdict(Status.SUCCEEDED),
    Reason.CANCELLED_BY_CLIENT: Verdict(Status.CANCELLED),
    Reason.PAUSED_BY_CLIENT: Verdict(Status.PAUSED),
    Reason.RESUMED_BY_CLIENT: Verdict(Status.QUEUED),
    Reason.TIME_LIMIT: Verdict(Status.FAILED),
    Reason.BUDGET_EXHAUSTED: Verdict(Status.FAILED),
    Reason.DATASET_UNREACHABLE: Verdict(Status.FAILED),
    Reason.DATASET_FORBIDDEN: Verdict(Status.FAILED),
    Reason.DATASET_EMPTY: Verdict(Status.FAILED),
    Reason.DATASET_INVALID: Verdict(Status.FAILED),
    Reason.DATASET_CHANGED: Verdict(Status.FAILED),
    Reason.IMAGE_CORRUPT: Verdict(Status.FAILED),
    Reason.CREDENTIALS_UNKNOWN: Verdict(Status.FAILED),
    Reason.UNSUPPORTED: Verdict(Status.FAILED),
    Reason.WEIGHTS_UNAVAILABLE: Verdict(Status.FAILED),
    Reason.OUT_OF_MEMORY: Verdict(Status.FAILED),
    Reason.NO_SPACE: Verdict(Status.FAILED),
    Reason.CHECKPOINT_INVALID: Verdict(Status.FAILED),
    Reason.NAN_LOSS: Verdict(Status.FAILED),
    Reason.TRAINING_ERROR: Verdict(Status.FAILED),
    Reason.PROCESS_DIED: Verdict(Status.QUEUED, "counted"),
    Reason.STALLED: Verdict(Status.QUEUED, "counted"),
    Reason.WORKER_LOST: Verdict(Status.QUEUED, "counted"),
    Reason.WORKER_SHUTDOWN: Verdict(Status.QUEUED, "free"),
    Reason.NO_SLOT: Verdict(Status.QUEUED, "free"),
    Reason.RETRIES_EXHAUSTED: Verdict(Status.FAILED),
    Reason.UNSCHEDULABLE: Verdict(Status.FAILED),
    Reason.RUNG_REACHED: Verdict(Status.PAUSED),
    Reason.PROMOTED: Verdict(Status.QUEUED),
    Reason.PRUNED: Verdict(Status.PRUNED),
    Reason.OBJECTIVE_MISSING: Verdict(Status.FAILED),
    Reason.ALL_TRIALS_FAILED: Verdict(Status.FAILED),
    Reason.SEARCH_ERROR: Verdict(Status.FAILED),
    Reason.LIMIT_REACHED: Verdict(Status.SUCCEEDED),
}


def actions(status: Status, work: Work = "train", *, cancelling: bool = False, pausing: bool = False) -> list[str]:
    """What a client may ask of a job or dataset check, beside what was asked of it already."""
    if status in TERMINAL or cancelling:
        return []
    if work == "check":
        return ["cancel"]
    if status == Status.PAUSED or pausing:
        return ["resume", "cancel"]
    return ["cancel", "pause", "profile"] if status == Status.RUNNING else ["cancel", "pause"]
