"""What there is to be measured of a case. Torch-free."""

from __future__ import annotations

from training_core.contract.compute_plan import MemoryFormat, ResolvedPrecision
from training_core.planner.case import Case
from training_core.planner.table import Timing

LEAST_PIECE = 8
HALF_UNITS = {"avx512_bf16", "amx_bf16"}


def formats_of(case: Case) -> list[MemoryFormat]:
    """A pinned one alone; else both."""
    wanted = case.wanted.memory_format
    return ["channels_last", "contiguous"] if wanted == "auto" else [wanted]


def precisions_of(case: Case) -> list[ResolvedPrecision]:
    """A pinned one alone; else fp32, and half precision where the device has units for it."""
    wanted, host = case.wanted.precision, case.host
    if wanted != "auto":
        return [wanted]
    if host.device == "cpu":
        return ["fp32", "bf16"] if HALF_UNITS & set(host.cpu_features) else ["fp32"]
    return ["bf16", "fp32"] if (host.compute_capability or (0, 0)) >= (8, 0) else ["fp16", "fp32"]


def images(one: Timing) -> int:
    """Of all ranks together."""
    return one.batch * one.ranks


def growing(share: int) -> list[int]:
    """Batch sizes up to `share`, each four times the one before."""
    sizes = [share]
    while sizes[0] > 4 * LEAST_PIECE:
        sizes.insert(0, sizes[0] // 4)
    return sizes


def pieces(share: int) -> list[int]:
    """Halves and quarters of a share, as far as they are whole and not small."""
    return [share // parts for parts in (2, 4, 8) if share % parts == 0 and share // parts >= LEAST_PIECE]
