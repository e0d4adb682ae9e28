"""The cores of a CPU shared among several ranks, where that was measured to be clearly faster than one process."""

from __future__ import annotations

from training_core.contract.compute_plan import ComputePlan
from training_core.planner.case import Case
from training_core.planner.draft import Draft, said
from training_core.planner.spread import FEW_IMAGES, fit
from training_core.planner.table import Timing

# Ranks cost memory, and the time of a step depends on the slowest: less than a tenth is not worth them.
SPLIT_PAYS = 0.9
# DDP's batch norm sees the images of its rank alone.
FEW_FOR_BATCH_NORM = 16
MOST_RANKS = 8


def split_counts(case: Case) -> list[int]:
    """Numbers of ranks that are worth a measurement: doublings, while each rank has a core and enough images.

    However many slots a job on a CPU holds, the cores that come with them are its own to share. None where the spec or
    somebody else has decided.
    """
    wanted, host = case.wanted, case.host
    free = wanted.strategy == wanted.micro_batch_size == "auto" and case.fixed_ranks is None
    if host.device != "cpu" or host.link == "network" or case.plan.trainable != "all" or not free:
        return []
    least = FEW_FOR_BATCH_NORM if case.work.batch_norm else FEW_IMAGES
    most = min(host.cores, case.plan.batch_size // least, MOST_RANKS)
    return [count for count in (2, 4, 8) if count <= most]


def choose_split(draft: Draft) -> Draft:
    """After one process was planned as well as it can be."""
    alone = draft.step_seconds()
    steps = {way: draft.step_seconds(**_changes(way)) for way in _measured(draft)}
    if not steps:
        return draft
    best = min(steps, key=lambda way: steps[way])
    took = f"a step takes {said(steps[best])} on {best.ranks} ranks with {_threads(best.threads)} each"
    before = f"{said(alone)} in one process with {_threads(draft.compute.threads)}"
    if steps[best] > SPLIT_PAYS * alone:
        return draft.pick("strategy", draft.compute.strategy, f"measured: {before}, {took}")
    norm = f"; batch norm sees the {best.batch} images of a rank" if draft.case.work.batch_norm else ""
    return _split(draft, best, f"measured: {took}, {before}{norm}")


def _measured(draft: Draft) -> list[Timing]:
    """Ways that were measured with this batch, that the spec leaves open, and that fit into memory."""
    case, wanted = draft.case, draft.wanted
    counts = split_counts(case)
    return [
        way
        for way in (case.table.timings if case.table is not None else [])
        if way.ranks in counts
        and way.whole
        and wanted.precision in {"auto", way.precision}
        and wanted.memory_format in {"auto", way.memory_format}
        and way.threads == threads_of(case, way.ranks)
        and _is_whole(case, draft.trying(**_changes(way)), way)
    ]


def _is_whole(case: Case, compute: ComputePlan, way: Timing) -> bool:
    """Whether it was measured with a rank's share of this batch, and all of that fits at once."""
    found, share = fit(case, compute), compute.share(case.plan.batch_size)
    return way.batch == share == found.micro_batch and found.comfortable and not compute.activation_checkpointing


def threads_of(case: Case, ranks: int) -> int:
    """Of each of so many ranks."""
    return max(1, case.host.cores // ranks)


def _changes(way: Timing) -> dict[str, object]:
    return {
        "strategy": "ddp",
        "ranks": way.ranks,
        "threads": way.threads,
        "precision": way.precision,
        "memory_format": way.memory_format,
        "micro_batch_size": 0,
    }


def _split(draft: Draft, way: Timing, reason: str) -> Draft:
    before = draft.compute
    others = {name: value for name, value in _changes(way).items() if name != "strategy"}
    chosen = draft.pick("strategy", "ddp", reason, **others)
    chosen = chosen.pick("threads", way.threads, f"its share of {draft.case.host.cores} cores")
    chosen = chosen.pick("micro_batch_size", 0, "all of a rank's share at once fits")
    for field in ("precision", "memory_format"):
        if getattr(before, field) != (value := getattr(way, field)):
            chosen = chosen.pick(field, value, f"measured: the fastest on {way.ranks} ranks")
    return chosen


def _threads(count: int) -> str:
    return f"{count} thread{'s' if count > 1 else ''}"
