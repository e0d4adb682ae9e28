"""One place turns how a training process ended into the one report that the book gets."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from training_core.contract.errors import Reason
from training_core.contract.outcome import Outcome
from training_core.contract.redaction import redact
from training_core.contract.reports import Finished

EXCERPT_BYTES = 2000
# Whose cause only the log tells: faults of ours or of the host. Who made a mistake is told so, and shown no traceback.
NEED_THE_LOG = {Reason.TRAINING_ERROR, Reason.PROCESS_DIED, Reason.STALLED}


class Cause(StrEnum):
    """Why the worker itself ended a run, if it did."""

    CANCELLED = "cancelled"
    PAUSED = "paused"
    TIME_LIMIT = "time_limit"
    BUDGET = "budget"
    SHUTDOWN = "shutdown"
    STALLED = "stalled"
    ABANDONED = "abandoned"


CAUSE_REASONS = {
    Cause.CANCELLED: Reason.CANCELLED_BY_CLIENT,
    Cause.PAUSED: Reason.PAUSED_BY_CLIENT,
    Cause.TIME_LIMIT: Reason.TIME_LIMIT,
    Cause.BUDGET: Reason.BUDGET_EXHAUSTED,
    Cause.SHUTDOWN: Reason.WORKER_SHUTDOWN,
    Cause.STALLED: Reason.STALLED,
}
CAUSE_MESSAGES = {
    Cause.TIME_LIMIT: "The job reached compute.max_hours",
    Cause.BUDGET: "The job has used up its budget",
    Cause.STALLED: "The run gave no sign of life for too long and was ended",
    Cause.SHUTDOWN: "The worker is shutting down",
}
CAUSE_HINTS = {
    Cause.TIME_LIMIT: "raise compute.max_hours",
    Cause.BUDGET: "raise budget.max_cost or budget.max_device_hours",
}

_NAMES = {"preparing": "preparation", "running": "training"}


def settle(
    exit_code: int | None,
    outcome: Outcome | None,
    cause: Cause | None,
    *,
    phase: str,
    out_of_memory: bool,
    log: Path,
    checkpoint: str | None = None,
) -> Finished | None:
    """The attempt's last report; None when the book has given the attempt up and wants to hear nothing.

    `phase` is that of the process that ended; a run that left an outcome knows better. No process ran without
    `exit_code`. `checkpoint` is the last one that it wrote.
    """
    match outcome, cause:
        case _, Cause.ABANDONED:
            return None
        case Outcome(result="completed"), _:
            return Finished(reason=outcome.reason or Reason.COMPLETED, phase=outcome.phase, exit_code=exit_code)
        case Outcome(result="stopped"), Cause():
            told = {"message": CAUSE_MESSAGES.get(cause), "hint": _hint(cause, checkpoint)}
            return Finished(reason=CAUSE_REASONS[cause], phase=outcome.phase, exit_code=exit_code, **told)
        case Outcome(result="failed"), _:
            told = {name: getattr(outcome, name) for name in ("phase", "message", "hint", "rank")}
            reason = outcome.reason or Reason.TRAINING_ERROR
            log_excerpt = excerpt(log) if reason in NEED_THE_LOG else None
            return Finished(reason=reason, exit_code=exit_code, log_excerpt=log_excerpt, **told)
        case _, Cause():
            reason, message = CAUSE_REASONS[cause], CAUSE_MESSAGES.get(cause)
        case _ if out_of_memory:
            reason, message = Reason.OUT_OF_MEMORY, "The host's memory was used up and the kernel ended the run"
        case _:
            reason, message = (
                Reason.PROCESS_DIED,
                f"The {_NAMES[phase]} process ended without a word ({_ending(exit_code)})",
            )
    hint = _hint(cause, checkpoint) if cause is not None else None
    told = {"message": message, "hint": hint, "log_excerpt": excerpt(log) if reason in NEED_THE_LOG else None}
    return Finished(reason=reason, phase=phase, exit_code=exit_code, **told)


def _hint(cause: Cause, checkpoint: str | None) -> str | None:
    """How to go on from where a limit ended the run."""
    if cause not in CAUSE_HINTS:
        return None
    if checkpoint is None:
        return f"{CAUSE_HINTS[cause]}; there is no checkpoint yet"
    return f"{CAUSE_HINTS[cause]}; a new job with the id of this one as model.weights starts from its best checkpoint"


def _ending(exit_code: int | None) -> str:
    if exit_code is None:
        return "it was not started"
    return f"signal {-exit_code}" if exit_code < 0 else f"exit code {exit_code}"


def excerpt(log: Path) -> str | None:
    """The end of the log without anything that looks like a credential."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - EXCERPT_BYTES))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return None
    return redact(text).replace("\x00", "") or None


def oom_kills() -> int:
    """Processes that the kernel ended for want of memory since boot."""
    for line in Path("/proc/vmstat").read_text().splitlines():
        if line.startswith("oom_kill "):
            return int(line.split()[1])
    return 0
