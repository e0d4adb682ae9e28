"""From facts and measurements to a `ComputePlan`."""

from __future__ import annotations

from training_core.planner.compute_plan import ComputePlan, ResolvedPrecision, ResolvedStrategy
from training_core.planner.facts import HostFacts
from training_core.spec.compute import Compute


def choose_compute(wanted: Compute, host: HostFacts, *, fixed_ranks: int | None = None) -> ComputePlan:
    """`fixed_ranks` is the number of ranks that somebody else has started already (torchrun)."""
    reasons: dict[str, str] = {}
    strategy, ranks = _strategy(reasons, wanted, host, fixed_ranks)
    return ComputePlan(
        strategy=strategy, ranks=ranks, precision=_precision(reasons, wanted.precision, host), reasons=reasons
    )


def _strategy(
    reasons: dict[str, str], wanted: Compute, host: HostFacts, fixed_ranks: int | None
) -> tuple[ResolvedStrategy, int]:
    ranks = fixed_ranks or host.devices
    if wanted.strategy != "auto":
        reasons["compute.strategy"] = "as requested"
        return wanted.strategy, 1 if wanted.strategy == "single" else ranks
    if ranks == 1:
        reasons["compute.strategy"] = "one device"
        return "single", 1
    reasons["compute.strategy"] = f"{ranks} devices"
    return "ddp", ranks


def _precision(reasons: dict[str, str], wanted: str, host: HostFacts) -> ResolvedPrecision:
    precision, reason = _auto_precision(host)
    reasons["compute.precision"] = reason if wanted == "auto" else "as requested"
    return precision if wanted == "auto" else wanted  # type: ignore[return-value]


def _auto_precision(host: HostFacts) -> tuple[ResolvedPrecision, str]:
    if host.device == "cpu":
        return "fp32", "half precision is slower than fp32 on a CPU without matrix units for it"
    if host.compute_capability is not None and host.compute_capability >= (8, 0):
        return "bf16", "this GPU computes in bf16, which needs no loss scaling"
    return "fp16", "this GPU has no bf16; fp16 with loss scaling"
