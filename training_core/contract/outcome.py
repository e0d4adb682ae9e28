"""How a run ended, in its own words, and the map from any error to that."""

from __future__ import annotations

import traceback

from pydantic import BaseModel, ConfigDict, Field

from training_core.contract.errors import FULL_DISK, Failed, Reason, StopRequested, is_out_of_memory
from training_core.contract.redaction import redact

MESSAGE_CHARACTERS = 400
# Of torch's batch norm.
ONE_VALUE_WORDS = "Expected more than 1 value per channel"


class Outcome(BaseModel):
    """How the run ended, in its own words. `reason` is `stopped` only when the stop file asked for it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    result: str = Field(pattern="^(completed|stopped|failed)$")
    reason: Reason | None = None
    phase: str = Field(pattern="^(preparing|running)$")
    step: int = 0
    message: str | None = None
    hint: str | None = None
    rank: int | None = None


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


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename.rsplit('/', 1)[-1]}:{frames[-1].lineno}" if frames else "unknown place"
