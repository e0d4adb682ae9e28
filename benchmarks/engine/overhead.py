"""What a training loop costs beside the network: ours, Lightning and accelerate against a loop written by hand.

    /work/bench-venv/bin/python -m benchmarks.engine.overhead            # Lightning and accelerate: the extra `bench`
    /work/bench-venv/bin/python -m benchmarks.engine.overhead --quick

The same network, optimizer and resident uint8 batch for all, normalised by the same function in each step. Contenders
take turns in one process; a turn's step time is the median over its steps, and a round compares all of them. CPU time
is that of the whole process over the turn. The limit is the loop written by hand. Then training with real data stands
beside its own steps on one resident batch (`overhead_data`).
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.data.machine import machine
from benchmarks.engine.steps import batch_of, make_training  # first: it is a good neighbour

# isort: split
import torch
from torch import nn

from benchmarks.engine import overhead_data
from training_core.engine.step import train_step
from training_core.processes.heap import keep_freed_memory
from training_core.vision.networks import make_model
from training_core.vision.prefetch import Batch, Normalise

RESULTS = Path(__file__).parent / "results" / "overhead.md"
CASES: dict[str, dict[str, Any]] = {
    "small_cnn": {"image_size": 28, "channels": 1, "batch_size": 64},
    "mobilenet_v3_small": {"image_size": 64, "channels": 3, "batch_size": 32},
    "resnet18": {"image_size": 64, "channels": 3, "batch_size": 32},
}
Turn = Callable[[int], list[float]]
"""Takes a number of steps; returns the seconds of each."""


class Parts:
    """What all contenders share by kind: a network of their own, its optimizer, the batch."""

    def __init__(self, model: str, case: dict[str, Any], batch: Batch) -> None:
        torch.manual_seed(0)
        network = make_model(model, channels=case["channels"], classes=10)
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = torch.optim.SGD(
            self.network.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=0.0, fused=True
        )
        self.normalise = Normalise([128.0] * case["channels"], [64.0] * case["channels"], torch.device("cpu"))
        self.batch = batch


def by_hand(parts: Parts) -> Turn:
    def turn(steps: int) -> list[float]:
        times = [time.perf_counter()]
        for _ in range(steps):
            images, labels = parts.normalise(parts.batch)
            parts.optimizer.zero_grad(set_to_none=True)
            nn.functional.cross_entropy(parts.network(images), labels).backward()
            parts.optimizer.step()
            times.append(time.perf_counter())
        return between(times)

    return turn


def ours(model: str, case: dict[str, Any], folder: Path) -> Turn:
    training = make_training(folder, model=model, **case)
    batch = batch_of(training)

    def turn(steps: int) -> list[float]:
        times = [time.perf_counter()]
        for _ in range(steps):
            training.meter.lap("loop")
            train_step(training, batch)
            training.state.step += 1
            times.append(time.perf_counter())
        return between(times)

    return turn


def with_accelerate(parts: Parts) -> Turn:
    from accelerate import Accelerator  # noqa: PLC0415  may be missing

    accelerator = Accelerator(cpu=True)
    network, optimizer = accelerator.prepare(parts.network, parts.optimizer)

    def turn(steps: int) -> list[float]:
        times = [time.perf_counter()]
        for _ in range(steps):
            images, labels = parts.normalise(parts.batch)
            with accelerator.accumulate(network):
                optimizer.zero_grad()
                accelerator.backward(nn.functional.cross_entropy(network(images), labels))
                optimizer.step()
            times.append(time.perf_counter())
        return between(times)

    return turn


def with_lightning(parts: Parts, folder: Path) -> Turn:
    import lightning  # noqa: PLC0415  may be missing

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    times: list[float] = []

    class Module(lightning.LightningModule):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.network = parts.network

        def training_step(self, _: Any) -> torch.Tensor:
            times.append(time.perf_counter())
            images, labels = parts.normalise(parts.batch)
            return nn.functional.cross_entropy(self.network(images), labels)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return parts.optimizer

    module = Module()

    def turn(steps: int) -> list[float]:
        times.clear()
        trainer = lightning.Trainer(
            accelerator="cpu", max_steps=steps + 1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, default_root_dir=folder,
        )  # fmt: skip
        trainer.fit(module, [0] * (steps + 1))
        return between(times)

    return turn


def between(times: list[float]) -> list[float]:
    return [later - earlier for earlier, later in pairwise(times)]


def measure(model: str, case: dict[str, Any], rounds: int, steps: int) -> list[str]:
    with tempfile.TemporaryDirectory() as path:
        folder = Path(path)
        batch = batch_of(make_training(folder, model=model, **case))
        turns = {
            "by hand": by_hand(Parts(model, case, batch)),
            "ours": ours(model, case, folder),
            "accelerate": with_accelerate(Parts(model, case, batch)),
            "Lightning": with_lightning(Parts(model, case, batch), folder),
        }
        taken: dict[str, list[float]] = {name: [] for name in turns}
        cpu: dict[str, list[float]] = {name: [] for name in turns}
        for number in range(rounds + 1):
            for name in list(turns)[:: 1 if number % 2 else -1]:
                start = time.process_time()
                seconds = statistics.median(turns[name](steps))
                if number:  # the first round chooses kernels
                    taken[name].append(seconds)
                    cpu[name].append((time.process_time() - start) / steps)
    lines = [
        f"\n## {model}, {case['batch_size']} images of {case['image_size']} px\n",
        "| loop | step (ms) | over the hand-written loop (median of rounds) | CPU ms a step |",
        "|---|---:|---:|---:|",
    ]
    for name, values in taken.items():
        over = statistics.median(mine / hand - 1 for mine, hand in zip(values, taken["by hand"], strict=True))
        wall, used = statistics.median(values) * 1000, statistics.median(cpu[name]) * 1000
        lines.append(f"| {name} | {wall:.3f} | {over:+.1%} | {used:.3f} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the smallest network, three rounds; keeps no result")
    parser.add_argument("--data", action="store_true", help="the table with real data alone; keeps no result")
    arguments = parser.parse_args()
    quick, all_of_it = arguments.quick, not arguments.quick and not arguments.data
    keep_freed_memory()  # as a training does, and for all contenders alike
    warnings.filterwarnings("ignore")  # Lightning's advice about loaders
    rounds, steps = (3, 20) if quick else (11, 40)
    rows = [
        "# Step overhead\n",
        f"`python -m benchmarks.engine.overhead`; {machine()}; torch {torch.__version__}, {torch.get_num_threads()} "
        f"threads, {rounds} rounds of {steps} steps, in turns. Lightning's CPU time holds the start of its trainer.",
    ]
    for model, case in CASES.items():
        if all_of_it or (quick and not arguments.data and model == "small_cnn"):
            rows += measure(model, case, rounds, steps)
    with tempfile.TemporaryDirectory() as path:
        rows += overhead_data.measure(Path(path), rounds, steps, ["small_cnn"] if quick else list(overhead_data.CASES))
    text = "\n".join(rows) + "\n"
    print(text)
    if all_of_it:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(text)


if __name__ == "__main__":
    main()
