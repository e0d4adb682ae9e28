"""Short measurements on this device before a training, in a process of their own that may die alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch._dynamo  # every optimizer imports it at its first step: once, before the fork, for the training too

from training_core.aside import Say, lines_from_child
from training_core.data.chosen import Chosen
from training_core.data.render import Recipe, Renderer
from training_core.planner.case import Case
from training_core.planner.compute_plan import MemoryFormat, ResolvedPrecision
from training_core.planner.spread import rank_counts
from training_core.planner.table import AllReduce, Memory, ProbeTable, Timing, key_of
from training_core.probe_links import all_reduce_seconds
from training_core.probe_step import ProbeStep, is_memory_error
from training_core.rundir import Prepared

# Beyond this of the best so far, a kind is given up after one step: half precision without units for it takes 16 times
# as long. The first step of a kind makes what later ones reuse, and may take twice as long.
GIVEN_UP = 4.0
MOST_ROUNDS, ENOUGH_SECONDS = 9, 1.0
# About as many kinds are measured, and each gets its share of the time.
KINDS = 14
LEAST_PIECE = 8
DATA_SECONDS, DATA_IMAGES = 0.5, 64
GRACE_SECONDS = 1.0
HALF_UNITS = {"avx512_bf16", "amx_bf16"}


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
    smaller pieces, the data path. What the table holds already is not measured again.
    """

    def __init__(self, case: Case, seconds: float, tell: Callable[[ProbeTable], None]) -> None:
        self._case, self._tell, self._device = case, tell, torch.device(case.host.device)
        self._began, self._seconds = time.perf_counter(), seconds
        before = case.table or ProbeTable(key=key_of(case.plan, case.host), device_name=case.host.device_name)
        self.table = before.model_copy(update={"torch": torch.__version__.partition("+")[0]})
        self._spent_before = before.probe_seconds
        self._enough = min(ENOUGH_SECONDS, seconds / KINDS)
        self._steps: dict[tuple[str, str], ProbeStep] = {}

    def run(self, prepared: Prepared | None) -> None:
        self._links()
        self._usual()
        for contenders in self._contests():
            fresh = [one for one in contenders if not self.table.has(one)]
            if fresh and not self._over():
                self._contest([self._best(), *fresh])
        if prepared is not None and self.table.image_seconds is None and not self._over():
            self._data(prepared)

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
        usual = self._kind(self._precisions()[0], self._formats()[0])
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
        formats, precisions = self._formats(), self._precisions()
        yield [self._kind(precisions[0], one) for one in formats[1:]]
        for half in precisions[1:]:
            yield [self._kind(half, one) for one in formats]
        best = self._best()
        if self._device.type == "cpu" and best.threads > 1:
            yield [best.model_copy(update={"threads": fewer}) for fewer in sorted({1, best.threads // 2})]
        best = self._best()
        if self._device.type == "cpu" and not self._case.work.batch_norm and self._free("micro_batch_size"):
            yield [best.model_copy(update={"batch": size}) for size in pieces(self._share)]

    @property
    def _ranks(self) -> int:
        """Of a CPU, where their number is known before; on GPUs it is chosen by what is measured on one."""
        return 1 if self._device.type == "cuda" else max(rank_counts(self._case))

    @property
    def _share(self) -> int:
        return -(-self._case.plan.batch_size // self._ranks)

    def _kind(self, precision: ResolvedPrecision, memory_format: MemoryFormat) -> Timing:
        """Not measured yet."""
        threads = 0 if self._device.type == "cuda" else max(1, self._case.host.cores // self._ranks)
        return Timing(precision=precision, memory_format=memory_format, threads=threads, batch=self._share, seconds=0.0)

    def _free(self, field: str) -> bool:
        return bool(getattr(self._case.wanted, field) == "auto")

    def _formats(self) -> list[MemoryFormat]:
        wanted = self._case.wanted.memory_format
        return ["channels_last", "contiguous"] if wanted == "auto" else [wanted]

    def _precisions(self) -> list[ResolvedPrecision]:
        """A pinned one alone; else fp32, and half precision where the device has units for it."""
        wanted, host = self._case.wanted.precision, self._case.host
        if wanted != "auto":
            return [wanted]
        if host.device == "cpu":
            return ["fp32", "bf16"] if HALF_UNITS & set(host.cpu_features) else ["fp32"]
        return ["bf16", "fp32"] if (host.compute_capability or (0, 0)) >= (8, 0) else ["fp16", "fp32"]

    def _best(self) -> Timing:
        """Of the whole share, the fastest so far."""
        whole = [one for one in self.table.timings if one.batch == self._share and one.whole]
        return min(whole, key=lambda one: one.seconds, default=self._kind(self._precisions()[0], self._formats()[0]))

    def _over(self) -> bool:
        return time.perf_counter() - self._began > self._seconds

    def _contest(self, contenders: list[Timing]) -> bool:
        """Turn by turn, so that a busy moment of the host meets all of them; the fastest step of each counts.

        False when memory ended.
        """
        limit = GIVEN_UP * min((one.seconds / one.batch for one in self.table.timings), default=float("inf"))
        running: list[Timing] = []
        try:
            for one in contenders:
                first = self._take(one)
                slow = first > limit * one.batch
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
        fastest = [float("inf")] * len(running)
        began = time.perf_counter()
        for taken in range(MOST_ROUNDS):
            if taken >= 2 and (self._over() or time.perf_counter() - began > self._enough * len(running)):
                break
            fastest = [min(best, self._take(one)) for best, one in zip(fastest, running, strict=True)]
        for one, seconds in zip(running, fastest, strict=True):
            self._remember(one, seconds)

    def _take(self, one: Timing) -> float:
        place = (one.precision, one.memory_format)
        if place not in self._steps:
            self._steps[place] = ProbeStep(self._case.plan, one, self._device)
        return self._steps[place].take(one.batch, one.threads or torch.get_num_threads())

    def _remember(self, one: Timing, seconds: float, *, whole: bool = True) -> None:
        """Of two measurements of the same, the faster one."""
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

    def _data(self, prepared: Prepared) -> None:
        """CPU seconds in which this thread makes one image of the training."""
        data = Chosen(prepared)
        renderer = Renderer(data.pack, Recipe(data.pack.folder, self._case.plan.augmentation, self._case.plan.seed))
        side, rows = self._case.plan.image_size, data.splits["train"]
        torch.set_num_threads(1)
        out = np.empty((min(DATA_IMAGES, len(rows)), side, side, data.pack.channels), np.uint8)
        made, spent, began = 0, 0.0, time.perf_counter()
        while time.perf_counter() - began < DATA_SECONDS:
            draws = np.resize(np.roll(rows, -made), len(out))
            start = time.process_time()
            renderer(draws, 0, out)
            spent, made = spent + time.process_time() - start, made + len(out)
        self._grow(image_seconds=spent / made)

    def _grow(self, **changes: object) -> None:
        spent = self._spent_before + time.perf_counter() - self._began
        self.table = self.table.model_copy(update={**changes, "probe_seconds": round(spent, 3)})
        self._tell(self.table)


def growing(share: int) -> list[int]:
    """Batch sizes up to `share`, each four times the one before."""
    sizes = [share]
    while sizes[0] > 4 * LEAST_PIECE:
        sizes.insert(0, sizes[0] // 4)
    return sizes


def pieces(share: int) -> list[int]:
    """Halves and quarters of a share, as far as they are whole and not small."""
    return [share // parts for parts in (2, 4, 8) if share % parts == 0 and share // parts >= LEAST_PIECE]
