"""What holds a training back most, from its numbers alone. Torch-free.

Each rule finds its fault or nothing, with the fraction of the steps' time that it costs; the dearest is the verdict.
Sources of the thresholds: data wait above 5 % with a readiness below 0.95 (SPDL's readiness of the sink queue),
exposed communication above 10 %, and the order "neither, yet slow: a noisy neighbour or launches" are those of
research/efficiency.md, section 4. The others are ours, measured by `benchmarks/engine/faults.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

from training_core.efficiency.model import Numbers, Verdict

FEWEST_STEPS, LEAST_SECONDS = 20, 0.5
DATA_WAIT, READINESS = 0.05, 0.95
EXPOSED_COMMUNICATION = 0.10
STRAGGLER_SPREAD, STRAGGLER_WAIT = 0.15, 0.05
OTHERS_SHARE_OF_CORES, DELAYED, STOLEN_SHARE = 0.15, 0.10, 0.05
FIXED_WORK, LAUNCHING, SMALL_BATCH_FACTOR = 0.25, 0.70, 2.5
STALLED = 0.10
LONG_PHASE = 0.20


def judge(numbers: Numbers) -> Verdict:
    if numbers.step_count < FEWEST_STEPS or numbers.steps_seconds < LEAST_SECONDS:
        return _too_short(numbers)
    found = [fault for rule in RULES if (fault := rule(numbers)) is not None]
    found.sort(key=lambda fault: -fault.lost_fraction)
    worst, *others = found or [_compute_bound(numbers)]
    evidence = [*worst.evidence, *_phases(numbers)]
    return worst.model_copy(update={"evidence": evidence, "also": [fault.kind for fault in others]})


def _too_short(numbers: Numbers) -> Verdict:
    evidence = [f"{numbers.step_count} steps in {numbers.steps_seconds:.2f} s are too few to judge"]
    return Verdict(
        kind="too_short",
        evidence=[*evidence, *_phases(numbers)],
        remedy="nothing: of a run this short, the start is what takes the time",
    )


def _phases(numbers: Numbers) -> list[str]:
    """What took much of the time outside of the steps."""
    words = {
        "waiting": "waiting for devices and processes",
        "prepare": "the preparation of the data",
        "startup": "the start of the ranks",
        "evaluate": "evaluations",
        "checkpoint": "checkpoints",
        "finish": "the work after the last step",
    }
    return [
        f"{words[name]} took {_percent(part.fraction)} of the {numbers.wall_seconds:.1f} s since the claim"
        for name, part in numbers.phases.items()
        if name in words and part.fraction >= LONG_PHASE
    ]


def _stalled(numbers: Numbers) -> Verdict | None:
    lost = numbers.stalled_seconds / numbers.steps_seconds
    if lost < STALLED:
        return None
    return Verdict(
        kind="stalled",
        evidence=[
            f"steps that stood still took {numbers.stalled_seconds:.1f} s of {numbers.steps_seconds:.1f} s; the "
            f"longest took {numbers.longest_step_seconds:.1f} s where a mean one takes {_time(numbers.step_seconds)}"
        ],
        remedy="see the stacks in the log for where it stood: often a dataset's storage, or a rank that hangs",
        lost_fraction=round(lost, 4),
    )


def _noisy_neighbour(numbers: Numbers) -> Verdict | None:
    cpu = numbers.cpu
    crowded = (cpu.others or 0.0) >= OTHERS_SHARE_OF_CORES * cpu.cores and (cpu.delayed or 0.0) >= DELAYED
    stolen = (cpu.stolen or 0.0) >= STOLEN_SHARE * cpu.cores
    throttled = (cpu.throttled or 0.0) >= DELAYED
    if not (crowded or stolen or throttled):
        return None
    evidence = [f"this job used {cpu.busy:.2f} of {cpu.cores} cores"]
    if crowded:
        evidence.append(
            f"other processes used {cpu.others:.2f} of them, and threads of this one stood ready without a core for "
            f"{_percent(cpu.delayed or 0.0)} of the time that they had something to do"
        )
    if stolen:
        evidence.append(f"the hypervisor gave {cpu.stolen:.2f} of them to others")
    if throttled:
        evidence.append(f"the quota of the container held it back for {_percent(cpu.throttled or 0.0)} of the time")
    lost = max((cpu.delayed or 0.0) if crowded else 0.0, (cpu.stolen or 0.0) / cpu.cores, cpu.throttled or 0.0)
    return Verdict(
        kind="noisy_neighbour",
        evidence=evidence,
        remedy="reserve the cores for this job, or give it as many threads as there are free cores",
        lost_fraction=round(lost, 4),
    )


def _straggler(numbers: Numbers) -> Verdict | None:
    ranks = numbers.ranks
    if ranks is None or ranks.spread < STRAGGLER_SPREAD:
        return None
    slowest = ranks.step_seconds[ranks.slowest]
    others = [seconds for rank, seconds in enumerate(ranks.step_seconds) if rank != ranks.slowest]
    lost = (slowest - median(others)) / max(numbers.step_seconds, 1e-9)
    if lost < STRAGGLER_WAIT:
        return None
    evidence = [
        f"rank {ranks.slowest} works {_time(slowest)} for a step, the others {_time(median(others))} "
        f"({_percent(ranks.spread)} more): they wait for it"
    ]
    data = ranks.data_wait_seconds[ranks.slowest] - min(ranks.data_wait_seconds)
    remedy = f"look at the host and the device of rank {ranks.slowest}: heat, other processes, a slower model"
    if data > 0.5 * (slowest - median(others)):
        evidence.append(f"{_time(data)} of it are spent on waiting for its batches")
        remedy = f"look at the storage and the cores that make the batches of rank {ranks.slowest}"
    if ranks.slowest_changes:
        evidence.append(f"the slowest rank changed over {ranks.stretches} stretches")
        remedy = "different ranks are slow in turn, which points to the loading of data: pack it smaller, or add cores"
    return Verdict(kind="straggler", evidence=evidence, remedy=remedy, lost_fraction=round(min(lost, 1.0), 4))


def _data_bound(numbers: Numbers) -> Verdict | None:
    queue, lost = numbers.queue, numbers.fraction("data_wait")
    if lost <= DATA_WAIT or queue is None or queue.readiness >= READINESS:
        return None
    grown = queue.threads - queue.threads_at_start
    full = queue.threads >= queue.most_threads
    more = "" if full else f", of {queue.most_threads} that it may have"
    return Verdict(
        kind="data_bound",
        evidence=[
            f"steps wait for data {_percent(lost)} of their time; {queue.late_batches} of {queue.batches} batches were "
            f"late (readiness {queue.readiness:.2f})",
            f"batches are made by {_counted(queue.threads, 'thread')}{more}",
            *_bound(numbers),
        ],
        remedy=(
            "pack the dataset (dataset.packing: raw, or jpeg at a smaller size), take a lighter augmentation, or give "
            "the job more cores"
        ),
        taken=f"{_counted(grown, 'more thread')} to make batches than at the start" if grown > 0 else None,
        lost_fraction=lost,
    )


def _wait_for_slowest(numbers: Numbers) -> float:
    """Fraction of the steps in which rank 0 only waits for a slower one, which looks like communication."""
    if numbers.ranks is None:
        return 0.0
    wait = max(numbers.ranks.step_seconds) - numbers.ranks.step_seconds[0]
    return min(numbers.fraction("communication"), wait / max(numbers.step_seconds, 1e-9))


def _communication_bound(numbers: Numbers) -> Verdict | None:
    exposed = numbers.fraction("communication")
    lost = exposed - _wait_for_slowest(numbers)
    if lost <= EXPOSED_COMMUNICATION:
        return None
    evidence = f"{numbers.world_size} ranks wait for each other's gradients during {_percent(exposed)} of a step"
    if exposed - lost >= 0.01:
        evidence += f", for {_percent(exposed - lost)} of it because one is slower"
    fewer = "use fewer devices (compute.strategy: single)"
    if numbers.one_process_seconds is not None:
        if (saved := 1 - numbers.one_process_seconds / _without_data(numbers)) <= EXPOSED_COMMUNICATION:
            return None  # the ranks share the cores of one CPU, and are faster with all their waiting
        lost, fewer = saved, "set compute.strategy to single: one process was faster when it was probed"
    return Verdict(
        kind="communication_bound",
        evidence=[evidence, f"{numbers.images_per_rank} images a rank are computed meanwhile", *_one_process(numbers)],
        remedy=f"raise training.batch_size, or set compute.gradient_compression to fp16 or powersgd, or {fewer}",
        lost_fraction=round(lost, 4),
    )


def _without_data(numbers: Numbers) -> float:
    return max(1e-9, numbers.step_seconds * (1 - numbers.fraction("data_wait")))


def _one_process(numbers: Numbers) -> list[str]:
    """What several ranks that share the cores of one CPU are worth."""
    if numbers.one_process_seconds is None:
        return []
    return [
        f"{numbers.world_size} ranks share the cores and take {_time(_without_data(numbers))} for a step; one process "
        f"took {_time(numbers.one_process_seconds)} when it was probed"
    ]


def _small_batch(numbers: Numbers) -> Verdict | None:
    """Work that is the same for a batch of any size: the optimizer, the loop, and the launching of each operator.

    On a GPU the clock of the host has what it launches, so an evaluation tells nothing there.
    """
    fixed = numbers.fraction("optimizer") + numbers.fraction("other")
    factor = numbers.small_batch_factor or 0.0
    factor = factor if factor >= SMALL_BATCH_FACTOR and numbers.device == "cpu" else 0.0
    launching = numbers.host_fraction or 0.0
    launching = launching if launching >= LAUNCHING else 0.0
    if fixed < FIXED_WORK and launching == 0.0 and factor == 0.0:
        return None
    evidence = [
        f"{_counted(numbers.images_per_rank, 'image')} a rank: few for a step of {_time(numbers.step_seconds)}; "
        f"{_percent(fixed)} of it are the optimizer and the loop, which a larger batch would not need more of"
    ]
    if factor > 0.0:
        evidence.append(f"forward and backward of an image take {factor:.1f} times what they would in large batches")
    if launching > 0.0:
        evidence.append(f"the host launches work for {_percent(launching)} of the time: the GPU waits for it")
    lost = fixed + (numbers.fraction("compute") * (1 - 1 / factor) if factor else 0.0)
    return Verdict(
        kind="small_batch",
        evidence=evidence,
        remedy="raise training.batch_size (with training.optimizer.learning_rate: auto, the rate follows)",
        lost_fraction=round(max(lost, launching - numbers.fraction("data_wait")), 4),
    )


def _compute_bound(numbers: Numbers) -> Verdict:
    evidence = [
        f"{_percent(numbers.fraction('compute'))} of a step are forward and backward",
        *_one_process(numbers),
        *_bound(numbers),
    ]
    remedy = "nothing is in the way: a faster device, more of them, a smaller model or smaller pictures save time"
    if numbers.device == "cuda" and numbers.precision == "fp32":
        remedy = "let compute.precision be auto: this GPU is faster in half precision"
    return Verdict(kind="compute_bound", evidence=evidence, remedy=remedy)


def _bound(numbers: Numbers) -> list[str]:
    speed = numbers.speed
    if speed.bound is None or speed.ratio is None:
        return []
    how = "with all batches at hand" if speed.basis == "held_back" else "without the waiting for data"
    return [
        f"{speed.images_per_second:,.0f} images/s are {_percent(speed.ratio)} of the {speed.bound:,.0f} {how}",
    ]


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.0f} %" if fraction >= 0.1 else f"{100 * fraction:.1f} %"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


RULES: tuple[Callable[[Numbers], Verdict | None], ...] = (
    _stalled,
    _noisy_neighbour,
    _straggler,
    _data_bound,
    _communication_bound,
    _small_batch,
)
