"""The efficiency account of one attempt, as it is reported and served. Torch-free.

The seconds of `phases` and of `steps` together are `wall_seconds`: nothing is counted twice and nothing is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Phase = Literal["waiting", "prepare", "startup", "evaluate", "checkpoint", "finish", "other"]
StepShare = Literal["data_wait", "transfer", "compute", "communication", "optimizer", "other"]
VerdictKind = Literal[
    "compute_bound",
    "data_bound",
    "communication_bound",
    "straggler",
    "noisy_neighbour",
    "small_batch",
    "stalled",
    "too_short",
]


class Part(BaseModel):
    """`fraction` is of the wall time for a phase, and of the time of all steps for a share of them."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    seconds: float
    fraction: float


class Speed(BaseModel):
    """`bound` is what the same model reaches with all batches at hand; `ratio` is measured / bound.

    `basis` of the bound: `held_back` steps on real batches that were fetched before, or, in a run too short for
    that, or where that was slower, `without_waiting`: the measured steps less the time that they waited for data.
    `bound_steps` were held back.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    images_per_second: float
    bound: float | None = None
    ratio: float | None = None
    basis: Literal["held_back", "without_waiting"] = "without_waiting"
    bound_steps: int = 0


class Queue(BaseModel):
    """Whether batches were there when they were asked for. `readiness` is 1 - time waited / time of the steps."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    readiness: float
    batches: int
    late_batches: int
    threads: int = Field(description="that make batches now; 0 where nothing is made ahead")
    threads_at_start: int
    most_threads: int


class RankTimes(BaseModel):
    """Seconds of a mean step of each rank, in rank order, without what it waited for the others."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step_seconds: list[float]
    data_wait_seconds: list[float]
    slowest: int
    spread: float = Field(description="slowest / median of the others - 1")
    slowest_changes: bool = Field(description="another rank was the slowest in different stretches of the run")
    stretches: int


class Memory(BaseModel):
    """At its highest so far: of the device as the allocator holds it, or of this process on a CPU."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    of: Literal["device", "process"]
    peak_bytes: int
    limit_bytes: int


class Cpu(BaseModel):
    """`busy` and `others` count cores: `busy` 1.7 is 1.7 cores of this job on this host, `others` those of all else.

    `others` and `stolen` (by the hypervisor) are of the cores allowed. `delayed` is the fraction of the time in which
    threads of this process wanted a core and had none. All are of the time of the steps; None: no counter here.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    cores: int
    threads: int
    seconds: float
    busy: float
    others: float | None = None
    stolen: float | None = None
    delayed: float | None = None
    throttled: float | None = None


class Gpu(BaseModel):
    """By NVML, over the devices of this host: means of the samples, the memory as of the last one.

    `utilisation` says only that some kernel was running.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    devices: int
    utilisation: float
    memory_used_bytes: int
    power_watts: float | None = None
    temperature_celsius: float | None = None


class Energy(BaseModel):
    """Since the ranks started, of the whole package or device: also what others used of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    joules: float | None = None
    source: Literal["nvml", "rapl"] | None = None
    missing_because: str | None = None


class Compared(BaseModel):
    """A prediction of the plan beside its measurement."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    predicted: float
    measured: float

    @property
    def ratio(self) -> float:
        """Above 1: more than predicted."""
        return self.measured / self.predicted if self.predicted else 0.0


class Verdict(BaseModel):
    """What holds the training back most, and what does `also`, the worst first.

    `taken` is what the engine did about it by itself; None: nothing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: VerdictKind
    evidence: list[str]
    remedy: str
    taken: str | None = None
    also: list[VerdictKind] = Field(default_factory=list)
    lost_fraction: float = Field(default=0.0, description="of the time of the steps, that the remedy might give back")


class Numbers(BaseModel):
    """All of an account but what it means. `step_count` steps of this attempt so far; `compared` by name.

    `images_per_rank` are those that one rank sees in a step. `stalled_seconds` are of steps that took too long by far.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    device: str
    precision: str
    world_size: int
    batch_size: int
    images_per_rank: int
    step: int
    step_count: int
    images: int
    wall_seconds: float
    phases: dict[Phase, Part]
    steps: dict[StepShare, Part]
    step_seconds: float
    longest_step_seconds: float = 0.0
    stalled_seconds: float = 0.0
    one_process_seconds: float | None = Field(
        default=None, description="of a step without its data, as probed, where the ranks share one CPU's cores"
    )
    host_fraction: float | None = Field(
        default=None, description="of the steps, that the host was busy launching work for a GPU; None on a CPU"
    )
    small_batch_factor: float | None = Field(
        default=None,
        description=(
            "forward and backward of an image beside three times its share of an evaluation, whose batches are large: "
            "above 1 by what small batches cost; None before enough was evaluated"
        ),
    )
    speed: Speed
    queue: Queue | None = None
    ranks: RankTimes | None = None
    memory: Memory
    cpu: Cpu
    gpu: Gpu | None = None
    gpu_missing_because: str | None = None
    energy: Energy = Field(default_factory=Energy)
    compared: dict[str, Compared] = Field(default_factory=dict)
    metering_fraction: float = Field(default=0.0, description="of the time of the steps, spent on this account")

    def fraction(self, share: StepShare) -> float:
        part = self.steps.get(share)
        return part.fraction if part else 0.0

    @property
    def steps_seconds(self) -> float:
        return sum(part.seconds for part in self.steps.values())


class Account(Numbers):
    verdict: Verdict


def parts(seconds: Mapping[str, float], total: float) -> dict[str, Part]:
    """Each with its fraction of `total`."""
    return {
        name: Part(seconds=round(value, 4), fraction=round(value / total, 4) if total > 0 else 0.0)
        for name, value in seconds.items()
    }
