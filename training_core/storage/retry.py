"""Patience with a store that fails in passing."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from typing import TypeVar

from training_core.contract.errors import FULL_DISK, Failed, Reason

Result = TypeVar("Result")

# Nothing that another try would mend.
LASTING = FULL_DISK | {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EISDIR}
PAUSES_SECONDS = (0.5, 2.0, 8.0)
# Clients of object stores raise errors of their own where the network fails them.
NETWORK_MODULES = {"aiohttp", "botocore", "aiobotocore", "urllib3", "fsspec", "s3fs"}


def patiently(what: str, work: Callable[[], Result], problems: list[str]) -> Result:
    """The result of `work`, tried again after each of `PAUSES_SECONDS`; `problems` is told why.

    Raises `Failed(no_space)`, `Failed(training_error)` when trying was of no use, and whatever no wait would mend.
    """
    for pause in (*PAUSES_SECONDS, None):
        try:
            return work()
        except Exception as problem:
            if isinstance(problem, OSError) and problem.errno in FULL_DISK:
                raise Failed(Reason.NO_SPACE, f"no space left for {what}", "free some space in the store") from problem
            if not may_pass(problem):
                raise
            problems.append(f"{what}: {type(problem).__name__}: {problem}")
            if pause is None:
                raise Failed(
                    Reason.TRAINING_ERROR,
                    f"{what} could not be written in {len(PAUSES_SECONDS) + 1} tries: {problem}",
                    "see whether the store of the checkpoints can be reached, then resume",
                ) from problem
            time.sleep(pause)
    raise AssertionError("the last try returns or raises")


def may_pass(problem: Exception) -> bool:
    if isinstance(problem, OSError):
        return problem.errno not in LASTING
    return type(problem).__module__.split(".")[0] in NETWORK_MODULES
