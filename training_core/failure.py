"""Why a run ends `failed`: an error class with its machine-readable reason, and the map from any error to it."""

from __future__ import annotations

import errno
import traceback

from training_core.redaction import redact
from training_core.rundir import Outcome
from training_core.wire import Reason

MESSAGE_CHARACTERS = 400
# Of torch's allocator for CPUs, of C++ below it, of oneDNN, which says no more, and of CUDA and its libraries.
OUT_OF_MEMORY_WORDS = (
    "can't allocate memory", "std::bad_alloc", "could not create a primitive", "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED", "callback: MemoryError",
)  # fmt: skip
# Of torch's batch norm.
ONE_VALUE_WORDS = "Expected more than 1 value per channel"
FULL_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


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


def outcome_of(error: BaseException, *, phase: str, step: int, rank: int | None) -> Outcome:
    """The outcome that `error` stands for; unknown errors become `training_error` with their own words and place."""
    if isinstance(error, StopRequested):
        return Outcome(result="stopped", phase=phase, step=step, rank=rank)
    if isinstance(error, Failed):
        reason, message, hint = error.reason, error.message, error.hint
    else:
        reason, message, hint = _explain(error)
    return Outcome(
        result="failed",
        reason=reason,
        phase=phase,
        step=step,
        message=redact(message)[:MESSAGE_CHARACTERS],
        hint=hint,
        rank=rank,
    )


def _explain(error: BaseException) -> tuple[Reason, str, str | None]:
    if isinstance(error, MemoryError):
        return Reason.OUT_OF_MEMORY, "the host ran out of memory", "lower training.batch_size or training.image_size"
    if is_out_of_memory(error):
        return Reason.OUT_OF_MEMORY, "the device ran out of memory", "lower training.batch_size or training.image_size"
    if isinstance(error, ValueError) and ONE_VALUE_WORDS in str(error):
        return (
            Reason.UNSUPPORTED,
            "a batch norm was given one value by channel, of which there is no deviation: one image, come to 1 x 1",
            "raise training.batch_size or training.image_size, use fewer devices, or set model.name to small_cnn",
        )
    if isinstance(error, OSError) and error.errno in FULL_DISK:
        return Reason.NO_SPACE, f"no space left on the device ({error.filename or 'run'})", "free some disk space"
    return Reason.TRAINING_ERROR, f"{type(error).__name__}: {error} ({_place(error)})", None


def is_out_of_memory(error: BaseException) -> bool:
    """Of a device or of the host, in torch's words or in Python's, without importing torch."""
    if isinstance(error, MemoryError) or any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__):
        return True
    words = str(error)
    return isinstance(error, RuntimeError) and any(one in words for one in OUT_OF_MEMORY_WORDS)


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename.rsplit('/', 1)[-1]}:{frames[-1].lineno}" if frames else "unknown place"
