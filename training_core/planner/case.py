"""One decision to make: what is wanted, of which training, where, and what is known about it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from training_core.contract.compute_plan import ComputePlan
from training_core.contract.spec.compute import Compute
from training_core.planner.facts import HostFacts
from training_core.planner.plan import Plan
from training_core.planner.published import published_table, ring_seconds
from training_core.planner.table import ProbeTable
from training_core.planner.workload import Workload, workload_of


@dataclass(frozen=True)
class Case:
    """`table` is what was measured for the plan on this kind of host, if anything was.

    `fixed_ranks` is the number of ranks that somebody else has started already. `validation_images` are judged after
    each epoch.
    """

    wanted: Compute
    plan: Plan
    host: HostFacts
    table: ProbeTable | None = None
    fixed_ranks: int | None = None

    @cached_property
    def work(self) -> Workload:
        return workload_of(self.plan)

    @cached_property
    def published(self) -> ProbeTable:
        return published_table(self.plan, self.host)

    @property
    def basis(self) -> Literal["probes", "published"]:
        return self.table.basis if self.table is not None and self.table.alone else "published"

    def seconds(self, precision: str, memory_format: str, threads: int, images: float) -> float:
        """Of a step of one rank on `images`: measured, else published in proportion to what was measured."""
        threads = 0 if self.host.device == "cuda" else threads  # those of the host do not decide there
        published = self._published(precision, memory_format, threads, images)
        if self.table is None or not self.table.alone:
            return published
        measured = self.table.seconds((precision, memory_format, threads, 1), images)
        if measured is not None:
            return measured
        usual = self.table.alone[0]
        at_usual = self.table.seconds(usual.kind, images) or usual.seconds
        return at_usual * published / self._published(usual.precision, usual.memory_format, usual.threads, images)

    def together_seconds(self, compute: ComputePlan, images: float) -> float | None:
        """Of a step of all ranks of a CPU on `images` each, exchange included; None where nobody measured it."""
        if self.table is None or compute.ranks == 1 or compute.strategy != "ddp" or self.host.device == "cuda":
            return None
        kind = (compute.precision, compute.memory_format, compute.threads, compute.ranks)
        return self.table.seconds(kind, images)

    def _published(self, precision: str, memory_format: str, threads: int, images: float) -> float:
        known = sorted({one.threads for one in self.published.timings})
        nearest = min(known, key=lambda one: abs(one - threads))
        seconds = self.published.seconds((precision, memory_format, nearest, 1), images)
        # A precision that no device of this kind computes in: slower than anything it would be compared with.
        return seconds if seconds is not None else 16 * self._published("fp32", memory_format, threads, images)

    def all_reduce_seconds(self, ranks: int, bytes_: int) -> float:
        """As published, in proportion to what was measured between some ranks of this host, if anything was."""
        published = self._published_all_reduce(ranks, bytes_)
        measured = next(iter(self.table.all_reduce), None) if self.table is not None else None
        if measured is None:
            return published
        return published * measured.seconds / self._published_all_reduce(measured.ranks, measured.bytes)

    def _published_all_reduce(self, ranks: int, bytes_: int) -> float:
        return ring_seconds(bytes_, ranks, self.host.link if self.host.link != "none" else "shared_memory")
