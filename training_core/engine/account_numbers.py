"""From what was seen to the numbers of an account."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from training_core.efficiency.clock import PHASES, STEPS
from training_core.efficiency.host import CpuReading
from training_core.efficiency.model import Compared, Cpu, Energy, Gpu, Memory, Numbers, Queue, RankTimes, Speed, parts
from training_core.engine.synthetic_bound import HeldBack
from training_core.engine.training import Training
from training_core.processes.memory_limit import memory_limit_bytes
from training_core.vision.prefetch import Loader

# A backward pass computes twice what a forward pass does.
FORWARDS_OF_A_STEP = 3
FEWEST_EVALUATED = 200


@dataclass
class Seen:
    """What one rank has seen of its steps, and, on rank 0, of the others and of the host.

    `evaluated_images` are those of this rank, in `evaluate_seconds`. `cpu` went by since the first step; `used` is
    what the ranks of this host used of it, `peak_bytes` the memory of the largest one.
    """

    first_step: int
    cores: int
    threads_at_start: int = 0
    loader: Loader | None = None
    held_back: HeldBack | None = None
    evaluated_images: int = 0
    evaluate_seconds: float = 0.0
    longest_step_seconds: float = 0.0
    stalled_seconds: float = 0.0
    cpu: CpuReading = field(default_factory=lambda: CpuReading(0.0, 0.0, None, None, None, None))
    used: float = 0.0
    peak_bytes: int = 0
    metering_seconds: float = 0.0
    ranks: RankTimes | None = None
    gpu: Gpu | None = None
    gpu_missing_because: str | None = None
    energy: Energy = field(default_factory=Energy)


def numbers_of(training: Training, seen: Seen) -> Numbers:
    plan, clock = training.plan, training.clock
    seconds = clock.now()
    wall, steps = sum(seconds.values()), clock.steps_seconds()
    count = training.state.step - seen.first_step
    step_seconds = steps / count if count else 0.0
    phases = {name: seconds.get(name, 0.0) for name in (*PHASES, "other")}
    cuda = training.ranks.device.type == "cuda"
    lost = seen.held_back.lost_seconds if seen.held_back is not None else 0.0
    numbers = {
        "device": training.ranks.device.type,
        "precision": plan.precision,
        "world_size": plan.world_size,
        "batch_size": plan.batch_size,
        "images_per_rank": plan.compute.share(plan.batch_size),
        "step": training.state.step,
        "step_count": count,
        "images": count * plan.batch_size,
        "wall_seconds": round(wall, 4),
        "phases": parts(phases, wall),
        "steps": parts(step_shares(seconds, training.meter.device_seconds), steps),
        "step_seconds": round(step_seconds, 6),
        "longest_step_seconds": round(seen.longest_step_seconds, 4),
        "stalled_seconds": round(seen.stalled_seconds, 4),
        "one_process_seconds": plan.compute.prediction.one_process_seconds if plan.compute.prediction else None,
        "host_fraction": round(seconds.get("compute", 0.0) / max(steps, 1e-9), 4) if cuda else None,
        "small_batch_factor": _small_batch_factor(seen, seconds, count * plan.compute.share(plan.batch_size)),
        "speed": _speed(plan.batch_size, count, seconds, steps, seen.held_back),
        "queue": _queue(seen, steps),
        "ranks": seen.ranks,
        "memory": _memory(training.ranks.device, seen.peak_bytes),
        "cpu": _cpu(seen),
        "gpu": seen.gpu,
        "gpu_missing_because": seen.gpu_missing_because,
        "energy": seen.energy,
        "metering_fraction": round((seen.metering_seconds + lost) / max(steps, 1e-9), 6),
    }
    told = Numbers.model_validate(numbers)
    return told.model_copy(update={"compared": _compared(training, told)})


def step_shares(seconds: Mapping[str, float], device_seconds: Mapping[str, float]) -> dict[str, float]:
    """The seconds of all steps by share, as the device spent them where it has a time line of its own.

    What the host's clock has beyond that of the device (work that is under way) is `other`.
    """
    by_clock = {name: seconds.get(name, 0.0) for name in STEPS}
    total, on_device = sum(by_clock.values()), sum(device_seconds.values())
    shares = by_clock
    if on_device > 0:
        scale = min(1.0, total / on_device)
        shares = {name: device_seconds.get(name, 0.0) * scale for name in STEPS}
        shares["loop"] += total - sum(shares.values())
    return {"other" if name == "loop" else name: value for name, value in shares.items()}


def _speed(
    batch_size: int, count: int, seconds: Mapping[str, float], steps: float, held_back: HeldBack | None
) -> Speed:
    measured = count * batch_size / steps if steps > 0 else 0.0
    without = steps - seconds.get("data_wait", 0.0)
    bound = count * batch_size / without if without > 0 else 0.0
    steps_held_back = held_back.steps if held_back is not None and held_back.step_seconds else 0
    basis: Literal["held_back", "without_waiting"] = "without_waiting"
    # A few steps may fall into a bad moment; what was reached is a bound of its own.
    if held_back is not None and held_back.step_seconds and batch_size / held_back.step_seconds > bound:
        bound, basis = batch_size / held_back.step_seconds, "held_back"
    return Speed(
        images_per_second=round(measured, 2),
        bound=round(bound, 2) if bound else None,
        ratio=round(measured / bound, 4) if bound else None,
        basis=basis,
        bound_steps=steps_held_back,
    )


def _small_batch_factor(seen: Seen, seconds: Mapping[str, float], images: int) -> float | None:
    """See `Numbers`."""
    if seen.evaluated_images < FEWEST_EVALUATED or images == 0:
        return None
    an_image = seen.evaluate_seconds / seen.evaluated_images
    return round(seconds.get("compute", 0.0) / images / (FORWARDS_OF_A_STEP * an_image), 3)


def _queue(seen: Seen, steps: float) -> Queue | None:
    loader = seen.loader
    if loader is None:
        return None
    waited = loader.asked.waited_seconds / steps if steps > 0 else 0.0
    return Queue(
        readiness=round(max(0.0, 1 - waited), 4),
        batches=loader.asked.batches,
        late_batches=loader.asked.late,
        threads=loader.crew.threads,
        threads_at_start=seen.threads_at_start,
        most_threads=loader.crew.most_threads,
    )


def _memory(device: torch.device, peak_bytes: int) -> Memory:
    if device.type == "cuda":
        limit = torch.cuda.get_device_properties(device).total_memory
        return Memory(of="device", peak_bytes=peak_bytes, limit_bytes=limit)
    return Memory(of="process", peak_bytes=peak_bytes, limit_bytes=memory_limit_bytes())


def _cpu(seen: Seen) -> Cpu:
    cpu, wall = seen.cpu, seen.cpu.at
    wanted = cpu.used + (cpu.delayed or 0.0)

    def cores(seconds: float | None) -> float | None:
        return round(seconds / wall, 4) if seconds is not None and wall > 0 else None

    return Cpu(
        cores=seen.cores,
        threads=torch.get_num_threads(),
        seconds=round(seen.used, 3),
        busy=cores(seen.used) or 0.0,
        others=cores(max(0.0, cpu.busy - seen.used) if cpu.busy is not None else None),
        stolen=cores(cpu.stolen),
        delayed=round(cpu.delayed / wanted, 4) if cpu.delayed is not None and wanted > 0 else None,
        throttled=cores(cpu.throttled),
    )


def _compared(training: Training, numbers: Numbers) -> dict[str, Compared]:
    prediction = training.plan.compute.prediction
    if prediction is None or prediction.basis == "none" or numbers.step_count == 0:
        return {}
    pairs: dict[str, Any] = {
        "step_seconds": (prediction.step_seconds, numbers.step_seconds),
        "images_per_second": (prediction.images_per_second, numbers.speed.images_per_second),
        "memory_bytes": (prediction.memory_bytes, numbers.memory.peak_bytes),
    }
    return {name: Compared(predicted=one, measured=other) for name, (one, other) in pairs.items()}
