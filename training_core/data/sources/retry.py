"""The one place where a failed request is tried again.

Our own HTTP client (S3, web) never retries, and the file systems of fsspec are told not to where they can be: two
layers of retries multiply, and hide from the job how long it has waited.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from training_core.data.sources.errors import HttpStatus, is_temporary

T = TypeVar("T")

ATTEMPTS = 6
FIRST_PAUSE_SECONDS = 0.25
LONGEST_PAUSE_SECONDS = 8.0
TOTAL_SECONDS = 90.0


def retried(request: Callable[[], T], *, pause: Callable[[float], None] = time.sleep) -> T:
    """What `request` returns. Temporary errors are tried again after a back-off with full jitter (Brooker, AWS 2015).

    Raises the last error, after six attempts or when the next one would begin later than 90 seconds after the first.
    """
    start = time.monotonic()
    for attempt in range(ATTEMPTS):
        try:
            return request()
        except Exception as error:
            ceiling = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2**attempt)
            wait = random.uniform(ceiling / 2, ceiling)  # noqa: S311  spreads load, guards nothing
            if isinstance(error, HttpStatus):
                wait = max(wait, min(error.retry_after, LONGEST_PAUSE_SECONDS))
            spent = time.monotonic() - start + wait > TOTAL_SECONDS
            if not is_temporary(error) or attempt == ATTEMPTS - 1 or spent:
                raise
        pause(wait)
    raise AssertionError("the last attempt returns or raises")
