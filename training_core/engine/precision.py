"""Autocast and gradient scaling by the requested precision, and what tells that half precision is slow here."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext

import torch

AUTOCAST_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
# The first step chooses kernels and fills caches; the next ones tell.
UNMEASURED_STEPS, MEASURED_STEPS = 1, 3


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """A fresh context for one forward pass."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=AUTOCAST_DTYPES[precision])


def make_scaler(precision: str, device: torch.device) -> torch.amp.GradScaler:
    """Scales only for fp16; a disabled scaler passes everything through."""
    return torch.amp.GradScaler(device.type, enabled=precision == "fp16")


class Stopwatch:
    """Times a few steps near the beginning, without what lies between them, and nothing else.

    A GPU is waited for in these steps alone. One that is not `wanted` costs a comparison a step.
    """

    def __init__(self, device: torch.device, *, wanted: bool = False) -> None:
        self._device = device
        self._left = UNMEASURED_STEPS + MEASURED_STEPS if wanted else 0
        self._seconds: list[float] = []
        self._begun = 0.0

    def begin(self) -> None:
        if self._left:
            self._begun = self._now()

    def end(self) -> float | None:
        """The fastest of the measured seconds, once, after the last of them."""
        if not self._left:
            return None
        self._left -= 1
        self._seconds.append(self._now() - self._begun)
        return None if self._left else min(self._seconds[UNMEASURED_STEPS:])

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()
