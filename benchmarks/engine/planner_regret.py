"""What the planner's choice costs against the best of an exhaustive grid, on this CPU.

    python -m benchmarks.engine.planner_regret [--quick] [--cases 1,4]

For each case the planner probes and chooses as it does before a training. Then every way of the grid is measured: one
process or two gloo ranks, threads, pieces of the batch, fp32 or bf16, both memory layouts; a way that is clearly slower
is not measured to the end. The choice and the best of the grid meet again, turn by turn, and the ratio of their medians
is the regret. Ranks with fewer than 16 images each of a network with batch norm are measured and not in the choice:
that would be another training.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.data.machine import machine
from training_core.contract.compute_plan import ComputePlan
from training_core.contract.spec import JobSpec
from training_core.planner.case import Case
from training_core.planner.choose import choose_compute
from training_core.planner.facts import HostFacts, cpu_features, cpu_name, memory_bytes
from training_core.planner.network_table import NETWORKS
from training_core.planner.plan import Plan, choose_plan
from training_core.planner.recipe import DataFacts
from training_core.planner.split import split_counts
from training_core.planner.table import ProbeTable, Timing
from training_core.processes.heap import keep_freed_memory
from training_core.processes.process import share_cores

if TYPE_CHECKING:
    from training_core.preflight.probing.ranks import Company

RESULTS = Path(__file__).parent / "results" / "planner_regret.md"
PROBE_SECONDS, GRID_SECONDS, LAST_SECONDS, RANKS_SECONDS = 12.0, 15.0, 10.0, 60.0
SLOW, LAST_ROUNDS, FINALISTS = 1.5, 9, 3


@dataclass(frozen=True)
class Setting:
    model: str
    side: int
    channels: int
    batch: int
    cores: int

    def __str__(self) -> str:
        return f"{self.model}, {self.side} px, batch {self.batch}, {self.cores} core{'s' if self.cores > 1 else ''}"


SETTINGS = (
    Setting("small_cnn", 28, 1, 64, 2), Setting("small_cnn", 28, 1, 256, 2), Setting("small_cnn", 28, 1, 128, 1),
    Setting("small_cnn", 64, 3, 128, 2), Setting("mobilenet_v3_small", 64, 3, 32, 2),
    Setting("mobilenet_v3_small", 112, 3, 32, 1), Setting("mobilenet_v3_small", 128, 3, 16, 2),
    Setting("mobilenet_v3_large", 96, 3, 16, 2), Setting("resnet18", 32, 3, 64, 2), Setting("resnet18", 32, 3, 64, 1),
    Setting("resnet18", 64, 3, 32, 2), Setting("resnet18", 112, 3, 16, 1), Setting("resnet18", 112, 3, 16, 2),
    Setting("resnet50", 64, 3, 8, 2),
)  # fmt: skip


@dataclass(frozen=True)
class Way:
    """Of computing a step: `pieces` forward passes of each of `ranks` processes with `threads`."""

    precision: str
    memory_format: str
    threads: int
    pieces: int = 1
    ranks: int = 1

    def __str__(self) -> str:
        who = "2 ranks" if self.ranks > 1 else f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        return f"{self.precision}, {self.memory_format}, {who}" + (f", {self.pieces} pieces" if self.pieces > 1 else "")


@dataclass(frozen=True)
class Result:
    setting: str
    chosen: str
    best: str
    regret: float
    usual: float  # fp32, channels_last, all cores, the whole batch: what nobody has to measure for
    bf16: float
    alone: float  # the best way of one process
    two_ranks: float | None
    may_split: bool
    probe_seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="four cases, for a look")
    parser.add_argument("--cases", help="numbers of the cases, from 0")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one is not None:
        print(json.dumps(asdict(measure(SETTINGS[arguments.one]))))
        return
    numbers = [int(one) for one in arguments.cases.split(",")] if arguments.cases else list(range(len(SETTINGS)))
    results = [alone(number) for number in ([0, 4, 10, 9] if arguments.quick else numbers)]
    content = table(results)
    print(content)
    if not arguments.quick and not arguments.cases:
        RESULTS.write_text(content)


def alone(number: int) -> Result:
    """In a process of its own, which may use only the cores of the case."""
    command = [sys.executable, "-m", "benchmarks.engine.planner_regret", "--one", str(number)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result = Result(**json.loads(done.stdout.splitlines()[-1]))
    print(f"{result.setting}: {result.regret:.3f} ({result.chosen}; best {result.best})", file=sys.stderr, flush=True)
    return result


def measure(setting: Setting) -> Result:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: setting.cores])
    share_cores()
    keep_freed_memory()  # as a training does
    spec = JobSpec.model_validate(
        {
            "task": "image-classification",
            "dataset": {"uri": "file:///none"},
            "model": {"name": setting.model},
            "training": {"batch_size": setting.batch, "optimizer": {"name": "adamw"}},
        }
    )
    facts = DataFacts(50_000, 10, setting.channels, setting.side, "")
    plan = choose_plan(spec, facts, device="cpu")
    case = Case(spec.compute, plan, host_of(setting))
    from training_core.preflight.probing.ranks import Company  # noqa: PLC0415  torch, after its cores are shared

    pair = Company(plan, 2)  # forked before torch has threads; they wait
    try:
        compute, probed = choose(case)
        allowed = setting.cores == 1 or 2 in split_counts(case)
        return judge(setting, way_of(compute, setting), Course(plan, pair), probed, may_split=allowed)
    finally:
        pair.end()


def host_of(setting: Setting) -> HostFacts:
    return HostFacts(
        device="cpu",
        devices=setting.cores,
        cores=setting.cores,
        memory_bytes=memory_bytes(),
        cpu_features=cpu_features(),
        device_name=cpu_name(),
    )


def choose(case: Case) -> tuple[ComputePlan, ProbeTable]:
    """As before a training."""
    from training_core.preflight.probing.probes import Probe  # noqa: PLC0415

    told: list[ProbeTable] = []
    Probe(case, PROBE_SECONDS, told.append).run(None)
    return choose_compute(case.wanted, case.plan, case.host, told[-1]), told[-1]


def way_of(compute: ComputePlan, setting: Setting) -> Way:
    pieces = compute.accumulation_steps(setting.batch)
    return Way(compute.precision, compute.memory_format, compute.threads, pieces, compute.ranks)


def grid(setting: Setting) -> list[Way]:
    threads = sorted({1, setting.cores})
    pieces = [count for count in (1, 2, 4) if count == 1 or (may_be_cut(setting) and setting.batch // count >= 8)]
    ways = [
        Way(precision, memory_format, count, cut)
        for cut in pieces
        for precision in ("fp32", "bf16")
        for memory_format in ("channels_last", "contiguous")
        for count in threads
    ]
    if setting.cores > 1:
        ways += [replace(one, ranks=2) for one in ways if one.threads == 1 and one.pieces == 1]
    return ways


def may_be_cut(setting: Setting) -> bool:
    """A batch norm that sees pieces is another training: only networks without it have the choice."""
    return not NETWORKS[setting.model].batch_norm


def judge(setting: Setting, chosen: Way, course: Course, probed: ProbeTable, *, may_split: bool) -> Result:
    ways = list(dict.fromkeys([chosen, *grid(setting)]))
    seconds = course.grid(ways)
    ranked = sorted(seconds, key=lambda way: seconds[way])
    usual = Way("fp32", "channels_last", setting.cores)
    alone = next(way for way in ranked if way.ranks == 1)
    half = next(way for way in ranked if way.precision == "bf16" and way.ranks == 1)
    pair = next((way for way in ranked if way.ranks == 2), None)
    finalists = [chosen, usual, alone, half, *([pair] if pair else []), *ranked[:FINALISTS]]
    last = course.rounds(list(dict.fromkeys(finalists)), LAST_SECONDS, LAST_ROUNDS)
    best = min((way for way in last if way.ranks == 1 or may_split), key=lambda way: last[way])
    return Result(
        setting=str(setting),
        chosen=str(chosen),
        best=str(best),
        regret=last[chosen] / last[best],
        usual=last[usual] / last[best],
        bf16=last[half] / last[best],
        alone=min(last[way] for way in last if way.ranks == 1) / last[best],
        two_ranks=last[pair] / last[best] if pair else None,
        may_split=may_split,
        probe_seconds=probed.probe_seconds,
    )


class Course:
    """Measures ways turn by turn."""

    def __init__(self, plan: Plan, pair: Company) -> None:
        self._plan, self._pair = plan, pair
        self._steps: dict[tuple[str, str], object] = {}

    def grid(self, ways: list[Way]) -> dict[Way, float]:
        """Medians; of a way that is clearly slower than the best before it, the faster of its first two steps."""
        first: dict[Way, float] = {}
        for way in ways:
            first[way] = self.take(way)
            if first[way] < 2 * SLOW * min(first.values()):
                first[way] = min(first[way], self.take(way))
        close = [way for way in ways if first[way] < SLOW * min(first.values())]
        return first | self.rounds(close, GRID_SECONDS, 5)

    def rounds(self, ways: list[Way], seconds: float, most: int) -> dict[Way, float]:
        taken: dict[Way, list[float]] = {way: [] for way in ways}
        began = time.perf_counter()
        for number in range(most):
            if number >= 2 and time.perf_counter() - began > seconds:
                break
            for way in ways:
                taken[way].append(self.take(way))
        return {way: statistics.median(times) for way, times in taken.items()}

    def take(self, way: Way) -> float:
        import torch  # noqa: PLC0415  after the ranks are forked

        from training_core.preflight.probing.step import ProbeStep  # noqa: PLC0415

        if way.ranks > 1:
            timing = timing_of(way).model_copy(update={"batch": self._plan.batch_size // way.ranks})
            return self._pair.take(timing, RANKS_SECONDS)
        kind = (way.precision, way.memory_format)
        if kind not in self._steps:
            self._steps[kind] = ProbeStep(self._plan, timing_of(way), torch.device("cpu"))
        step = self._steps[kind]
        assert isinstance(step, ProbeStep)
        return step.take(self._plan.batch_size // way.pieces, way.threads, pieces=way.pieces)


def timing_of(way: Way) -> Timing:
    return Timing.model_validate(
        {
            "precision": way.precision,
            "memory_format": way.memory_format,
            "threads": way.threads,
            "ranks": way.ranks,
            "batch": 0,
            "seconds": 0,
        }
    )


def table(results: list[Result]) -> str:
    regrets = [one.regret for one in results]
    wrong = [
        one.setting
        for one in results
        if ("bf16" in one.chosen and one.bf16 > one.usual * 1.05)
        or ("2 ranks" in one.chosen and one.regret > one.alone * 1.05)
    ]
    lines = [
        "## Planner regret: the time of a step as planned, over that of the best way of the grid",
        "",
        "| case | chosen | best of the grid | regret | without a choice | best bf16 | two gloo ranks | probe s |",
        "|---|---|---|---|---|---|---|---|",
        *[
            f"| {one.setting} | {one.chosen} | {one.best} | **{one.regret:.2f}** | {one.usual:.2f} | {said(one.bf16)} "
            f"| {said(one.two_ranks)}{'' if one.may_split else ' *'} | {one.probe_seconds:.1f} |"
            for one in results
        ],
        "",
        f"Median {statistics.median(regrets):.3f}, worst {max(regrets):.3f} over {len(results)} cases; at best 1. "
        f"Cases that chose bf16 or DDP where it is slower: {', '.join(wrong) or 'none'}.",
        "",
        "Ratios to the best of the grid in the same process, turn by turn; without a choice is fp32, channels_last, "
        "all cores, the whole batch. A way that is clearly slower is known from its first two steps. "
        "* Not in the choice: batch norm would see fewer than 16 images of a rank.",
        "",
        f"`python -m benchmarks.engine.planner_regret` on {machine()}.",
        "",
    ]
    return "\n".join(lines)


def said(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}"


if __name__ == "__main__":
    main()
