"""Why a run ends: reasons that a machine can read, and the errors that carry them. Torch-free."""

from __future__ import annotations

import errno
from enum import StrEnum

from training_core.contract.redaction import redact

# Of torch's allocator for CPUs, of C++ below it, of oneDNN, which says no more, and of CUDA and its libraries.
OUT_OF_MEMORY_WORDS = (
    "can't allocate memory", "std::bad_alloc", "could not create a primitive", "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED", "callback: MemoryError",
)  # fmt: skip
FULL_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Reason(StrEnum):
    """Why an attempt or a job is where it is. `api.book.status` maps each to a status and to whether it is retried."""

    SUBMITTED = "submitted"
    DISPATCHED = "dispatched"
    TRAINING = "training"
    COMPLETED = "completed"
    EARLY_STOPPED = "early_stopped"
    CANCELLED_BY_CLIENT = "cancelled_by_client"
    PAUSED_BY_CLIENT = "paused_by_client"
    RESUMED_BY_CLIENT = "resumed_by_client"
    TIME_LIMIT = "time_limit"
    BUDGET_EXHAUSTED = "budget_exhausted"
    DATASET_UNREACHABLE = "dataset_unreachable"
    DATASET_FORBIDDEN = "dataset_forbidden"
    DATASET_EMPTY = "dataset_empty"
    DATASET_INVALID = "dataset_invalid"
    DATASET_CHANGED = "dataset_changed"
    IMAGE_CORRUPT = "image_corrupt"
    CREDENTIALS_UNKNOWN = "credentials_unknown"
    UNSUPPORTED = "unsupported"
    WEIGHTS_UNAVAILABLE = "weights_unavailable"
    OUT_OF_MEMORY = "out_of_memory"
    NO_SPACE = "no_space"
    CHECKPOINT_INVALID = "checkpoint_invalid"
    NAN_LOSS = "nan_loss"
    TRAINING_ERROR = "training_error"
    PROCESS_DIED = "process_died"
    STALLED = "stalled"
    WORKER_LOST = "worker_lost"
    WORKER_SHUTDOWN = "worker_shutdown"
    NO_SLOT = "no_slot"
    RUNG_REACHED = "rung_reached"
    PROMOTED = "promoted"
    PRUNED = "pruned"
    OBJECTIVE_MISSING = "objective_missing"
    ALL_TRIALS_FAILED = "all_trials_failed"
    SEARCH_ERROR = "search_error"
    LIMIT_REACHED = "limit_reached"
    RETRIES_EXHAUSTED = "retries_exhausted"
    UNSCHEDULABLE = "unschedulable"


class Failed(Exception):
    """Raised where the cause is known. `message` names the file or the part of the URI, never a credential.

    `field` is the dotted path in the spec of the value to change, where there is one.
    """

    def __init__(self, reason: Reason, message: str, hint: str | None = None, *, field: str | None = None) -> None:
        super().__init__(redact(message))
        self.reason = reason
        self.message = redact(message)
        self.hint = None if hint is None else redact(hint)
        self.field = field


class StopRequested(Exception):
    """The stop file appeared while there was nothing to checkpoint yet."""


def is_out_of_memory(error: BaseException) -> bool:
    """Of a device or of the host, in torch's words or in Python's, without importing torch."""
    if isinstance(error, MemoryError) or any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__):
        return True
    words = str(error)
    return isinstance(error, RuntimeError) and any(one in words for one in OUT_OF_MEMORY_WORDS)
