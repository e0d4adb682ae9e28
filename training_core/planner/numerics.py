"""Precision, memory layout and CPU threads: how one rank computes a step."""

from __future__ import annotations

from training_core.contract.compute_plan import ResolvedPrecision
from training_core.planner.draft import AS_REQUESTED, Draft, said

# What an alternative must be faster by before it is taken: less is within what a short probe can tell.
CLEARLY = 0.95
MUCH_SLOWER = 1.25
OTHER_FORMAT = {"channels_last": "contiguous", "contiguous": "channels_last"}


def choose_numerics(draft: Draft) -> Draft:
    return _fewer_threads(_layout(_precision(_threads(draft))))


def _threads(draft: Draft) -> Draft:
    """All cores of the job, to begin with."""
    host = draft.case.host
    share = max(1, host.cores // draft.compute.ranks)
    if host.device == "cuda":
        return draft.pick("threads", share, f"its share of {host.cores} cores")
    return draft.pick("threads", share, f"all of its {share} cores" if share > 1 else "one core")


def _fewer_threads(draft: Draft) -> Draft:
    """Where that was measured to be clearly faster."""
    table, compute, best = draft.case.table, draft.compute, draft
    if table is None or draft.case.host.device == "cuda":
        return draft
    measured = {one.threads for one in table.alone if one.kind[:2] == (compute.precision, compute.memory_format)}
    for fewer in sorted(one for one in measured if one < compute.threads):
        few, all_of_them = best.step_seconds(threads=fewer), best.step_seconds()
        if few < CLEARLY * all_of_them:
            reason = f"a step takes {said(few)} with {fewer} and {said(all_of_them)} with {best.compute.threads}"
            best = best.pick("threads", fewer, reason)
    return best


def _precision(draft: Draft) -> Draft:
    automatic, reason = _auto_precision(draft)
    if draft.wanted.precision == "auto":
        return draft.pick("precision", automatic, reason)
    pinned = draft.pick("precision", draft.wanted.precision, AS_REQUESTED)
    mine, other = pinned.step_seconds(), pinned.step_seconds(precision=automatic)
    if mine > MUCH_SLOWER * other:
        words = f"a step takes about {said(mine)} in {pinned.compute.precision} and {said(other)} in {automatic} here"
        return pinned.warn("slow_precision", f"{words}; set compute.precision to auto")
    return pinned


def _auto_precision(draft: Draft) -> tuple[ResolvedPrecision, str]:
    if draft.case.host.device == "cpu":
        return _cpu_precision(draft)
    capability = draft.case.host.compute_capability
    if capability is None or capability < (7, 0):
        return "fp32", "this GPU has no units for half precision" if capability else "the GPU says not what it can do"
    half: ResolvedPrecision = "bf16" if capability >= (8, 0) else "fp16"
    measured, full = _best_layout(draft, half), draft.step_seconds(precision="fp32")
    if measured is not None and measured > CLEARLY * full:
        return "fp32", f"measured: a step takes {said(measured)} in {half} and {said(full)} in fp32"
    words = "which needs no loss scaling" if half == "bf16" else "with loss scaling: it has no bf16"
    return half, f"this GPU computes in {half}, {words}; a step takes {said(draft.step_seconds(precision=half))}"


def _cpu_precision(draft: Draft) -> tuple[ResolvedPrecision, str]:
    """fp32 unless it was measured that bf16 is faster in one layout or the other."""
    half = _best_layout(draft, "bf16")
    full = _best_layout(draft, "fp32") or draft.step_seconds(precision="fp32")
    if half is None:
        return "fp32", "half precision is slower than fp32 on a CPU unless it was measured to be faster"
    if half < CLEARLY * full:
        return "bf16", f"measured: a step takes {said(half)} in bf16 and {said(full)} in fp32"
    return "fp32", f"measured: a step takes {said(full)} in fp32 and {said(half)} in bf16"


def _best_layout(draft: Draft, precision: ResolvedPrecision) -> float | None:
    """Seconds of a step in it, in the better layout that was measured; None where none was."""
    table, threads = draft.case.table, draft.compute.threads
    formats = {one.memory_format for one in table.alone if one.precision == precision} if table is not None else set()
    if draft.wanted.memory_format != "auto":
        formats &= {draft.wanted.memory_format}
    steps = [draft.step_seconds(precision=precision, memory_format=one, threads=threads) for one in formats]
    return min(steps) if steps else None


def _layout(draft: Draft) -> Draft:
    if draft.wanted.memory_format != "auto":
        return draft.pick("memory_format", draft.wanted.memory_format, AS_REQUESTED)
    last, plain = (draft.step_seconds(memory_format=one) for one in ("channels_last", "contiguous"))
    if plain < CLEARLY * last:
        return draft.pick("memory_format", "contiguous", f"a step takes {said(plain)}, channels_last {said(last)}")
    words = f"; a step takes {said(last)}, contiguous {said(plain)}" if last < CLEARLY * plain else ""
    return draft.pick("memory_format", "channels_last", f"the layout of the batches{words}")
