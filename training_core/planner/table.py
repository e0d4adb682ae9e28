"""What short measurements on a device found, or what is published of it, and what follows for other batch sizes."""

from __future__ import annotations

import hashlib
import json
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from training_core.contract.compute_plan import MemoryFormat, ResolvedPrecision
from training_core.planner.facts import HostFacts
from training_core.planner.plan import Plan

TABLE_FORMAT = 1
Kind = tuple[str, str, int, int]
"""Precision, memory layout, threads of a rank, ranks."""


class Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Timing(Row):
    """Seconds of one forward and backward pass and optimizer step on `batch` images by one rank.

    Several `ranks` did so at the same time, each on as many images, and averaged their gradients within it; this is the
    time of the slowest. `whole` is false for a kind that was given up after one slow step, whose time this is.
    """

    precision: ResolvedPrecision
    memory_format: MemoryFormat
    threads: int
    ranks: int = 1
    batch: int
    seconds: float
    whole: bool = True

    @property
    def kind(self) -> Kind:
        return self.precision, self.memory_format, self.threads, self.ranks


class AllReduce(Row):
    """Seconds to average `bytes` over `ranks` of this host."""

    ranks: int
    bytes: int
    seconds: float


class Memory(Row):
    """Of one device while it trains: `base_bytes + bytes_per_image * batch` (a line through what was measured)."""

    precision: ResolvedPrecision
    base_bytes: int
    bytes_per_image: int


class ProbeTable(Row):
    """`image_seconds` is the CPU time in which the data path makes one image. `compile_gain` is what is left of a step.

    `probe_seconds` is what all of the measuring took, and `torch` the version that was measured.
    """

    key: str
    device_name: str
    torch: str = ""
    basis: Literal["probes", "published"] = "probes"
    source: str = ""
    timings: list[Timing] = Field(default_factory=list)
    memory: list[Memory] = Field(default_factory=list)
    all_reduce: list[AllReduce] = Field(default_factory=list)
    image_seconds: float | None = None
    compile_gain: float | None = None
    compile_seconds: float = 0.0
    probe_seconds: float = 0.0

    @property
    def alone(self) -> list[Timing]:
        """Those of one rank that has the device, or the cores, to itself."""
        return [one for one in self.timings if one.ranks == 1]

    def seconds(self, kind: Kind, images: float) -> float | None:
        """Of a step on `images`, between and beyond the batch sizes that were measured; None without any."""
        points = sorted((one.batch, one.seconds) for one in self.timings if one.kind == kind)
        return along(points, images) if points else None

    def has(self, timing: Timing) -> bool:
        """Whether the same was measured; a kind that was given up is, at any batch size."""
        same = [one for one in self.timings if one.kind == timing.kind]
        return any(one.batch == timing.batch or not one.whole for one in same)


def along(points: list[tuple[int, float]], x: float) -> float:
    """The value at `x` of straight lines through `points`; beyond the last in proportion.

    Below the first, the line of the first two shows what a step costs however small it is.
    """
    (first, at_first), (last, at_last) = points[0], points[-1]
    if x <= first:
        slope = (points[1][1] - at_first) / (points[1][0] - first) if len(points) > 1 else 0.0
        return max(at_first * x / first, at_first - slope * (first - x)) if slope > 0 else at_first * x / first
    if x >= last:
        return at_last * x / last
    right = next(number for number, (place, _) in enumerate(points) if place >= x)
    (left_x, left_y), (right_x, right_y) = points[right - 1], points[right]
    return left_y + (right_y - left_y) * (x - left_x) / (right_x - left_x)


def key_of(plan: Plan, host: HostFacts) -> str:
    """Of the table that `plan` needs on `host`: whatever changes the time of a step, but for the size of a batch.

    Plans of other batch sizes, epochs and seeds share it, and so do all jobs and trials on like hosts. The versions are
    inside of the table: one that another torch made is not used where there is torch.
    """
    facts = [
        TABLE_FORMAT, plan.model, plan.image_size, plan.channels, plan.classes, plan.trainable, plan.optimizer,
        host.device, host.device_name, host.cores,
        host.numa_nodes, host.devices if host.device == "cuda" else 1, host.link,
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]
