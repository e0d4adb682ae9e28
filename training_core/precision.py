"""Autocast and gradient scaling by the requested precision."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

AUTOCAST_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def choose_precision(requested: str, device: torch.device) -> tuple[str, str]:
    """The precision and the reason for it."""
    if requested != "auto":
        return requested, "as requested"
    if device.type == "cpu":
        return "fp32", "half precision is slower than fp32 on a CPU without matrix units for it"
    if torch.cuda.is_bf16_supported():
        return "bf16", "this GPU computes in bf16, which needs no loss scaling"
    return "fp16", "this GPU has no bf16; fp16 with loss scaling"


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """A fresh context for one forward pass."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=AUTOCAST_DTYPES[precision])


def make_scaler(precision: str, device: torch.device) -> torch.amp.GradScaler:
    """Scales only for fp16; a disabled scaler passes everything through."""
    return torch.amp.GradScaler(device.type, enabled=precision == "fp16")
