"""How much of a step two ranks wait for each other's gradients: plain DDP and ours with each of its hooks.

    python -m benchmarks.engine.communication            # two ranks over loopback (gloo), one thread each
    python -m benchmarks.engine.communication --quick

All contenders take turns in rounds, within one pair of processes. The exposed share is 1 - T(alone) / T, where T(alone)
is the same step without any exchange (`no_sync`, and for ours without its agreement). Bytes are what a rank hands to
the exchange in a step.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.data.machine import machine
from benchmarks.engine.steps import batch_of, forked, make_training  # first: it is a good neighbour

# isort: split
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from training_core.distributed.ranks import Ranks
from training_core.engine.step import train_step
from training_core.processes.heap import keep_freed_memory
from training_core.vision.networks import make_model
from training_core.vision.prefetch import Normalise

RESULTS = Path(__file__).parent / "results" / "communication.md"
HOOKS = ("none", "fp16", "bf16", "powersgd")
CASES = {
    "resnet18": {"model": "resnet18", "image_size": 64, "channels": 3, "batch_size": 32},
    "mobilenet_v3_small": {"model": "mobilenet_v3_small", "image_size": 64, "channels": 3, "batch_size": 32},
    "small_cnn": {"model": "small_cnn", "image_size": 28, "channels": 1, "batch_size": 128},
}
WARM_STEPS = 4

Step = Callable[[], None]


def plain(case: dict[str, Any], ranks: Ranks, *, alone: bool) -> Step:
    """The loop of the tutorials around DDP as it comes."""
    torch.manual_seed(0)
    model = make_model(case["model"], channels=case["channels"], classes=10).to(memory_format=torch.channels_last)
    parallel: nn.Module = model if alone else DistributedDataParallel(model)
    optimizer = torch.optim.SGD(parallel.parameters(), lr=0.01, momentum=0.9, nesterov=True, fused=True)
    normalise = Normalise([128.0] * case["channels"], [64.0] * case["channels"], torch.device("cpu"))
    batch = _batch(case, ranks)

    def step() -> None:
        images, labels = normalise(batch)
        optimizer.zero_grad()
        nn.functional.cross_entropy(parallel(images), labels).backward()
        optimizer.step()

    return step


def ours(case: dict[str, Any], ranks: Ranks, hook: str, folder: Path) -> Step:
    training = make_training(folder, ranks, **case, compute={"strategy": "ddp", "gradient_compression": hook})
    batch = batch_of(training)

    def step() -> None:
        train_step(training, batch)
        training.state.step += 1

    return step


def _batch(case: dict[str, Any], ranks: Ranks) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        training = make_training(Path(folder), Ranks(0, 1, ranks.device), **case)
        whole = batch_of(training)
    return type(whole)(
        whole.images[ranks.rank :: 2].contiguous(memory_format=torch.channels_last), whole.labels[ranks.rank :: 2]
    )


def measure(case: dict[str, Any], ranks: Ranks, rounds: int, steps: int) -> dict[str, list[float]]:
    """Milliseconds of a step by contender and round, the ranks beginning each turn together."""
    with tempfile.TemporaryDirectory() as path:
        folder = Path(path)
        contenders: dict[str, Step] = {
            "alone": plain(case, ranks, alone=True),
            "plain DDP": plain(case, ranks, alone=False),
        }
        for hook in HOOKS:
            contenders[f"ours, {hook}"] = ours(case, ranks, hook, folder)
        for step in contenders.values():
            for _ in range(WARM_STEPS):
                step()
        taken: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(rounds):
            for name, step in contenders.items():
                ranks.sum(torch.zeros(1))
                start = time.perf_counter()
                for _ in range(steps):
                    step()
                ranks.sum(torch.zeros(1))
                taken[name].append((time.perf_counter() - start) / steps * 1000)
    return taken


def table(name: str, case: dict[str, Any], taken: dict[str, list[float]]) -> list[str]:
    parameters = sum(one.numel() for one in make_model(name, channels=case["channels"], classes=10).parameters())
    lines = [
        f"\n## {name}, {case['batch_size']} images of {case['image_size']} px, "
        f"{parameters * 4 / 1e6:.1f} MB of gradients\n",
        "| contender | step (ms, median) | exposed share (median of rounds) | bytes handed over |",
        "|---|---:|---:|---:|",
    ]
    share = {"fp16": 0.5, "bf16": 0.5}
    for contender, values in taken.items():
        exposed = statistics.median(1 - alone / mine for alone, mine in zip(taken["alone"], values, strict=True))
        hook = contender.rpartition(" ")[2]
        sent = {"alone": "0", "ours, powersgd": "rank 2 factors"}.get(
            contender, f"{parameters * 4 * share.get(hook, 1.0) / 1e6:.1f} MB"
        )
        lines.append(f"| {contender} | {statistics.median(values):.1f} | {exposed:.1%} | {sent} |")
    return lines


def main() -> None:
    keep_freed_memory()  # as a training does, and for all contenders alike
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the small networks, two rounds; keeps no result")
    quick = parser.parse_args().quick
    rounds, steps = (2, 3) if quick else (9, 10)
    rows = [
        "# Exposed communication of two ranks\n",
        f"`python -m benchmarks.engine.communication`; {machine()}; torch {torch.__version__}, two ranks over "
        f"loopback, one thread each; {rounds} rounds of {steps} steps, in turns. The limit is 0: a step alone.",
    ]
    for name, case in CASES.items():
        if quick and name == "resnet18":
            continue
        [taken, _] = forked(2, lambda ranks, case=case: measure(case, ranks, rounds, steps))  # type: ignore[misc]
        rows += table(name, case, taken)
    text = "\n".join(rows) + "\n"
    print(text)
    if not quick:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(text)


if __name__ == "__main__":
    main()
