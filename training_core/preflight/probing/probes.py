"""Short measurements on this device before a training, in a process of their own that may die alone."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from itertools import product
from statistics import median

import torch
import torch._dynamo  # every optimizer imports it at its first step: once, before the fork, for the training too

from training_core.contract.compute_plan import MemoryFormat, ResolvedPrecision
from training_core.contract.run_dir import Prepared
from training_core.planner.case import Case
from training_core.planner.split import split_counts, threads_of
from training_core.planner.spread import rank_counts
from training_core.planner.table import AllReduce, Memory, ProbeTable, Timing, key_of
from training_core.preflight.probing.data import image_seconds
from training_core.preflight.probing.kinds import formats_of, growing, images, pieces, precisions_of
from training_core.preflight.probing.links import all_reduce_seconds
from training_core.preflight.probing.ranks import Company
from training_core.preflight.probing.step import ProbeStep, is_memory_error
from training_core.processes.forked_call import Say, lines_from_child

# Beyond this of the best so far, a kind is given up after one step: half precision without units for it takes 16 times
# as long. The first step of a kind makes what later ones reuse, and may take twice as long.
GIVEN_UP = 4.0
MOST_ROUNDS, ENOUGH_SECONDS = 9, 1.0
# About as many kinds are measured, and each gets its share of the time.
KINDS = 16
GRACE_SECONDS = 1.0


def probed(case: Case, prepared: Prepared, seconds: float) -> ProbeTable | None:
    """The table of `case` with what was measured now, within about `seconds`; None when that was nothing."""
    if case.plan.trainable == "head":
        return None

    def measure_and_say(say: Say) -> None:
        Probe(case, seconds, lambda table: say(table.model_dump_json())).run(prepared)

    lines = lines_from_child(measure_and_say, seconds + GRACE_SECONDS)
    return ProbeTable.model_validate_json(lines[-1]) if lines else None


class Probe:
    """Grows a table, and tells it whenever it holds more, until all is measured or time is up.

    What matters most comes first: the step as it would be without a choice, the layout, half precision, fewer threads,
    smaller pieces, several ranks, the data path. What the table holds already is not measured again.
    """

    def __init__(self, case: Case, seconds: float, tell: Callable[[ProbeTable], None]) -> None:
        self._case, self._tell, self._device = case, tell, torch.device(case.host.device)
        self._began, self._seconds = time.perf_counter(), seconds
        before = case.table or ProbeTable(key=key_of(case.plan, case.host), device_name=case.host.device_name)
        self.table = before.model_copy(update={"torch": torch.__version__.partition("+")[0]})
        self._spent_before = before.probe_seconds
        self._enough = min(ENOUGH_SECONDS, seconds / KINDS)
        self._steps: dict[tuple[str, str], ProbeStep] = {}
        self._companies: dict[int, Company] = {}

    def run(self, prepared: Prepared | None) -> None:
        self._links()
        self._companies = {count: Company(self._case.plan, count) for count in self._unmeasured_counts()}
        try:
            self._measure(prepared)
        finally:
            for company in self._companies.values():
                company.end()

    def _unmeasured_counts(self) -> list[int]:
        """Of ranks that may share the cores. These too are forked first."""
        known = {(one.ranks, one.batch) for one in self.table.timings}
        return [count for count in split_counts(self._case) if (count, self._share_of(count)) not in known]

    def _measure(self, prepared: Prepared | None) -> None:
        self._usual()
        for contenders in self._contests():
            fresh = [one for one in contenders if not self.table.has(one)]
            if fresh and not self._over():
                self._contest([self._best(), *fresh])
        if prepared is not None and self.table.image_seconds is None and not self._over():
            torch.set_num_threads(1)
            self._grow(image_seconds=image_seconds(self._case.plan, prepared))

    def _links(self) -> None:
        """Between as many ranks as there may be on this host; first, since it forks."""
        ranks, size = max(rank_counts(self._case)), self._case.work.gradient_bytes
        if ranks == 1 or self.table.all_reduce or self._case.host.link == "network":
            return
        seconds = all_reduce_seconds(ranks, size, self._device.type, self._seconds / 2)
        if seconds is not None:
            self._grow(all_reduce=[AllReduce(ranks=ranks, bytes=size, seconds=seconds)])

    def _usual(self) -> None:
        """The step that everything else is compared with; on a GPU at growing sizes, which shows its memory too."""
        usual = self._kind(precisions_of(self._case)[0], formats_of(self._case)[0])
        if self._device.type == "cpu":
            if not self.table.has(usual):
                self._contest([usual])
            return
        peaks: list[tuple[int, int]] = []
        for batch in growing(self._share):
            torch.cuda.reset_peak_memory_stats(self._device)
            if self._over() or not self._contest([usual.model_copy(update={"batch": batch})]):
                break
            peaks.append((batch, torch.cuda.max_memory_allocated(self._device)))
        self._fit_memory(usual.precision, peaks)

    def _contests(self) -> Iterator[list[Timing]]:
        """Each from what is best by then."""
        formats, precisions = formats_of(self._case), precisions_of(self._case)
        yield [self._kind(precisions[0], one) for one in formats[1:]]
        for half in precisions[1:]:
            yield [self._kind(half, one) for one in formats]
        best = self._best()
        if self._device.type == "cpu" and best.threads > 1:
            yield [best.model_copy(update={"threads": fewer}) for fewer in sorted({1, best.threads // 2})]
        best = self._best()
        if self._device.type == "cpu" and not self._case.work.batch_norm and self._free("micro_batch_size"):
            yield [best.model_copy(update={"batch": size}) for size in pieces(self._share)]
        for count in self._companies:
            yield self._together(count)
            if all(one.seconds > self._best().seconds for one in self.table.timings if one.ranks == count):
                break  # more of them would only exchange more

    def _together(self, count: int) -> list[Timing]:
        """So many ranks in both layouts, in each precision that was not given up."""
        whole = {one.kind[:2] for one in self.table.alone if one.whole}
        share, threads = self._share_of(count), threads_of(self._case, count)
        return [
            self._kind(*kind).model_copy(update={"threads": threads, "ranks": count, "batch": share})
            for kind in product(precisions_of(self._case), formats_of(self._case))
            if kind in whole
        ]

    @property
    def _ranks(self) -> int:
        """Of a CPU, where their number is known before; on GPUs it is chosen by what is measured on one."""
        return 1 if self._device.type == "cuda" else max(rank_counts(self._case))

    @property
    def _share(self) -> int:
        return self._share_of(self._ranks)

    def _share_of(self, ranks: int) -> int:
        return -(-self._case.plan.batch_size // ranks)

    def _kind(self, precision: ResolvedPrecision, memory_format: MemoryFormat) -> Timing:
        """Not measured yet."""
        threads = 0 if self._device.type == "cuda" else max(1, self._case.host.cores // self._ranks)
        return Timing(precision=precision, memory_format=memory_format, threads=threads, batch=self._share, seconds=0.0)

    def _free(self, field: str) -> bool:
        return bool(getattr(self._case.wanted, field) == "auto")

    def _best(self) -> Timing:
        """Of one process with the whole share, the fastest so far."""
        whole = [one for one in self.table.alone if one.batch == self._share and one.whole]
        return min(
            whole,
            key=lambda one: one.seconds,
            default=self._kind(precisions_of(self._case)[0], formats_of(self._case)[0]),
        )

    def _over(self) -> bool:
        return time.perf_counter() - self._began > self._seconds

    def _contest(self, contenders: list[Timing]) -> bool:
        """Turn by turn, so that a busy moment of the host meets all of them; the fastest step of each counts.

        False when memory ended.
        """
        limit = GIVEN_UP * min((one.seconds / images(one) for one in self.table.timings), default=math.inf)
        running: list[Timing] = []
        try:
            for one in contenders:
                first = self._take(one)
                slow = first > limit * images(one)
                if slow or self._over():
                    self._remember(one, first, whole=not slow)
                else:
                    running.append(one)
            self._rounds(running)
        except (RuntimeError, MemoryError) as error:
            if not is_memory_error(error):
                raise
            return False
        return True

    def _rounds(self, running: list[Timing]) -> None:
        seen: list[list[float]] = [[] for _ in running]
        began = time.perf_counter()
        for taken in range(MOST_ROUNDS):
            if taken >= 2 and (self._over() or time.perf_counter() - began > self._enough * len(running)):
                break
            for one, seconds in zip(running, seen, strict=True):
                seconds.append(self._take(one))
        for one, seconds in zip(running, seen, strict=True):
            # Ranks wait for the slowest of them at every step: their luckiest one says little.
            self._remember(one, min(seconds) if one.ranks == 1 else median(seconds))

    def _take(self, one: Timing) -> float:
        """Infinity where ranks were lost."""
        if one.ranks > 1:
            return self._companies[one.ranks].take(one, self._seconds)
        place = (one.precision, one.memory_format)
        if place not in self._steps:
            self._steps[place] = ProbeStep(self._case.plan, one, self._device)
        return self._steps[place].take(one.batch, one.threads or torch.get_num_threads())

    def _remember(self, one: Timing, seconds: float, *, whole: bool = True) -> None:
        """Of two measurements of the same, the faster one."""
        if math.isinf(seconds):
            return
        others = [other for other in self.table.timings if (other.kind, other.batch) != (one.kind, one.batch)]
        same = [other.seconds for other in self.table.timings if (other.kind, other.batch) == (one.kind, one.batch)]
        measured = one.model_copy(update={"seconds": min([seconds, *same]), "whole": whole})
        self._grow(timings=[*others, measured])

    def _fit_memory(self, precision: ResolvedPrecision, peaks: list[tuple[int, int]]) -> None:
        """A line through the peaks of the smallest and the largest batch, with what lies outside of the allocator."""
        if len(peaks) < 2:
            return
        (few, low), (many, high) = peaks[0], peaks[-1]
        per_image = (high - low) / (many - few)
        free, total = torch.cuda.mem_get_info(self._device)
        outside = total - free - torch.cuda.memory_reserved(self._device)
        base = int(outside + low - per_image * few)
        self._grow(memory=[Memory(precision=precision, base_bytes=base, bytes_per_image=int(per_image))])

    def _grow(self, **changes: object) -> None:
        spent = self._spent_before + time.perf_counter() - self._began
        self.table = self.table.model_copy(update={**changes, "probe_seconds": round(spent, 3)})
        self._tell(self.table)
