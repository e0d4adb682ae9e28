"""One device, DDP or FSDP2, over how many ranks, in which pieces: what fits the memory, and then what is fastest."""

from __future__ import annotations

from dataclasses import dataclass

from training_core.contract.compute_plan import ComputePlan, ResolvedStrategy
from training_core.contract.errors import Failed, Reason
from training_core.planner.case import Case
from training_core.planner.draft import AS_REQUESTED, Draft, gigabytes, said
from training_core.planner.predict import memory_line, state_bytes

STATE_SHARE = 0.6 / 0.9  # of the limit: weights, gradients and optimizer; the rest is for images
FEW_IMAGES = 8  # a piece with fewer wastes the device
WITHIN = 1.05  # the smallest number of ranks that is as fast as the fastest, but for this
PIECES_OF = 8  # kernels like batches of a multiple


@dataclass(frozen=True)
class Fit:
    """Whether the state takes no more than its share of memory, and the most images in a piece; 0 for none."""

    comfortable: bool
    micro_batch: int


def fit(case: Case, compute: ComputePlan) -> Fit:
    base, per_image = memory_line(case, compute)
    ranks = compute.ranks if case.host.device == "cpu" else 1
    limit = case.host.limit_bytes / ranks
    room = int((limit - base) / per_image) if limit > base else 0
    share = compute.share(case.plan.batch_size)
    micro = min(room, share)
    comfortable = state_bytes(case, compute) <= STATE_SHARE * limit and micro >= min(share, FEW_IMAGES)
    return Fit(comfortable, micro)


def choose_spread(draft: Draft) -> Draft:
    """Raises `Failed(out_of_memory)` for a training that fits no device, however it is cut."""
    return _micro_batch(_checkpointing(_ranks(draft)))


def rank_counts(case: Case) -> list[int]:
    """From which the number of ranks is chosen."""
    if case.fixed_ranks is not None:
        return [case.fixed_ranks]
    if case.wanted.strategy == "single":
        return [1]
    if case.wanted.strategy != "auto":
        return [case.host.devices]
    most = max(1, min(case.host.devices, case.plan.batch_size // case.plan.least_images))
    if case.host.device == "cpu":
        # One process with all cores, but for memory far away; `split` has ranks share them where that was measured.
        return [max(1, min(most, case.host.numa_nodes))]
    return list(range(1, most + 1))


def _ranks(draft: Draft) -> Draft:
    if draft.case.fixed_ranks not in {None, 1} and draft.wanted.strategy == "single":
        raise Failed(
            Reason.UNSUPPORTED,
            f"compute.strategy: single, and {draft.case.fixed_ranks} ranks have been started",
            "leave compute.strategy out, or start one rank",
        )
    found = {count: _cut(draft, count) for count in rank_counts(draft.case)}
    fitting = {count: one for count, one in found.items() if one is not None}
    if not fitting:
        raise _fits_nowhere(draft)
    steps = {count: _best_step(draft, one) for count, one in fitting.items()}
    fastest = min(steps, key=lambda count: steps[count])
    ranks = min(count for count in steps if steps[count] <= WITHIN * steps[fastest])
    chosen = draft.pick("strategy", fitting[ranks]["strategy"], _why(draft, steps, ranks), **_rest(fitting[ranks]))
    if ranks < draft.case.host.devices and draft.case.host.device == "cuda":
        words = f"{ranks} of {draft.case.host.devices} devices are used: more would not make a step clearly faster"
        return chosen.warn("idle_devices", f"{words}; a smaller compute.profile costs less")
    return chosen


def _best_step(draft: Draft, cut: dict[str, object]) -> float:
    """Seconds of a step, with compressed gradients where they are ours to choose and help."""
    compressions = ("none", "bf16") if draft.wanted.gradient_compression == "auto" else ("none",)
    return min(draft.step_seconds(**cut, gradient_compression=one) for one in compressions)


def _rest(changes: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in changes.items() if name != "strategy"}


def _why(draft: Draft, steps: dict[int, float], ranks: int) -> str:
    case = draft.case
    if draft.wanted.strategy != "auto":
        return AS_REQUESTED
    if case.fixed_ranks is not None:
        return f"{case.fixed_ranks} rank{'s' if case.fixed_ranks > 1 else ''} started by torchrun"
    if case.host.device == "cpu":
        if ranks > 1:
            return f"{ranks} memory nodes, one rank for each"
        return "one process with all cores, unless several ranks are measured to be clearly faster"
    if len(steps) == 1:
        return "one device"
    compared = ", ".join(
        f"{said(steps[count])} on {count}" for count in sorted(steps) if count in {1, ranks, max(steps)}
    )
    return f"a step takes {compared}"


def _cut(draft: Draft, ranks: int) -> dict[str, object] | None:
    """Strategy, checkpointing and pieces for so many ranks: the fastest that fits, or None."""
    wanted, last_resort = draft.wanted, None
    for strategy, recompute in _ways(ranks, wanted.strategy, wanted.activation_checkpointing):
        changes: dict[str, object] = {"strategy": strategy, "ranks": ranks, "activation_checkpointing": recompute}
        changes["threads"] = min(draft.compute.threads, max(1, draft.case.host.cores // ranks))
        compute = draft.trying(**changes)
        found = fit(draft.case, compute)
        pieces = pieces_of(compute.share(draft.case.plan.batch_size), found.micro_batch)
        if found.comfortable:
            return {**changes, "micro_batch_size": pieces}
        if found.micro_batch and (last_resort is None or strategy == "fsdp"):
            last_resort = {**changes, "micro_batch_size": pieces}
    return last_resort


def _ways(ranks: int, strategy: str, recompute: object) -> list[tuple[ResolvedStrategy, bool]]:
    """From the fastest to the one that needs the least memory, as far as the spec leaves them open."""
    plain: ResolvedStrategy = "single" if ranks == 1 else "ddp"
    kinds: list[ResolvedStrategy] = [plain] if ranks == 1 else [plain, "fsdp"]
    if strategy != "auto":
        kinds = [strategy]  # type: ignore[list-item]
    return [(kind, again) for kind in kinds for again in (False, True) if recompute in {"auto", again}]


def pieces_of(share: int, most: int) -> int:
    """Images of each piece when at most `most` fit: equal pieces, rounded up to a multiple; 0 for one piece."""
    if most >= share:
        return 0
    if most < 1:
        return 1
    count = -(-share // most)
    even = -(-share // count)
    rounded = -(-even // PIECES_OF) * PIECES_OF
    return rounded if rounded <= most else even


def _checkpointing(draft: Draft) -> Draft:
    case, compute = draft.case, draft.compute
    if draft.wanted.activation_checkpointing != "auto":
        return draft.pick("activation_checkpointing", compute.activation_checkpointing, AS_REQUESTED)
    if not compute.activation_checkpointing:
        return draft.pick("activation_checkpointing", False, "activations fit")
    state, limit = state_bytes(case, compute), case.host.limit_bytes
    words = f"{gigabytes(state)} of state and {gigabytes(memory_line(case, compute)[1])} an image in {gigabytes(limit)}"
    return draft.pick("activation_checkpointing", True, f"recomputed, since kept they do not fit: {words}")


def _micro_batch(draft: Draft) -> Draft:
    case, compute = draft.case, draft.compute
    share = compute.share(case.plan.batch_size)
    if draft.wanted.micro_batch_size != "auto":
        return _pinned_pieces(draft, share)
    if compute.micro_batch_size:
        base, per_image = memory_line(case, compute)
        words = f"{gigabytes(base)} and {gigabytes(per_image)} an image in {gigabytes(case.host.limit_bytes)}"
        return draft.pick(
            "micro_batch_size", compute.micro_batch_size, f"{words}; the batch stays {case.plan.batch_size}"
        )
    return _faster_pieces(draft, share)


def _pinned_pieces(draft: Draft, share: int) -> Draft:
    least = 2 if draft.case.work.batch_norm and draft.case.plan.trainable == "all" else 1
    wanted, reason = max(draft.wanted.micro_batch_size, least), AS_REQUESTED
    if wanted > draft.wanted.micro_batch_size:
        reason = f"a batch norm takes its mean over {least} images at least, where {least - 1} is asked for"
    pinned = draft.pick("micro_batch_size", wanted if wanted < share else 0, reason)
    most = fit(draft.case, draft.trying(micro_batch_size=0)).micro_batch
    if min(wanted, share) > most:
        return pinned.warn("memory", f"{min(wanted, share)} images at a time may not fit: about {most} do")
    return pinned


def _faster_pieces(draft: Draft, share: int) -> Draft:
    """Smaller pieces where they were measured to be clearly faster: on a CPU, activations that stay in its cache.

    Batch norm would see the piece instead of the batch: such a network is not cut for speed.
    """
    whole = draft.pick("micro_batch_size", 0, "all of a rank's share at once fits")
    table = draft.case.table
    if table is None or draft.case.work.batch_norm or draft.case.host.device == "cuda":
        return whole
    sizes = {one.batch for one in table.alone if one.batch < share and share % one.batch == 0 and one.whole}
    steps = {size: draft.step_seconds(micro_batch_size=size) for size in sizes}
    best = min(steps, key=lambda size: steps[size], default=0)
    at_once = draft.step_seconds(micro_batch_size=0)
    if best and steps[best] < 0.95 * at_once:
        return draft.pick("micro_batch_size", best, f"a step takes {said(steps[best])}, and {said(at_once)} at once")
    return whole


def _fits_nowhere(draft: Draft) -> Failed:
    case = draft.case
    ranks = max(rank_counts(case))
    strategy = "fsdp" if ranks > 1 and draft.wanted.strategy in {"auto", "fsdp"} else draft.compute.strategy
    compute = draft.trying(strategy=strategy, ranks=ranks, activation_checkpointing=True)
    base, per_image = memory_line(case, compute)
    return Failed(
        Reason.OUT_OF_MEMORY,
        f"{case.plan.model} needs {gigabytes(base)} and {gigabytes(per_image)} for each image of "
        f"{case.plan.image_size} px on each of {ranks} devices, and {gigabytes(case.host.limit_bytes)} can be used",
        "take a compute.profile with more memory or more devices, a smaller model.name or training.image_size",
    )
