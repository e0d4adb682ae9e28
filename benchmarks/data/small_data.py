"""Twenty images a class: from scratch, from trained weights, and the last layer alone on features made once.

    python -m benchmarks.data.small_data --seeds 5

A network learns every second class of the Fashion-MNIST sample; its weights serve the five others, of which each seed
draws other images. Every contender is a job on prepared data in a process of its own, timed from the start of the
attempt to its end, imports left out.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.data.machine import machine
from training_core.contract.reports import CheckpointSaved, Summary, decode
from training_core.contract.run_dir import RunDir, RunSpec, complete_lines
from training_core.contract.spec import JobSpec
from training_core.distributed.ranks import Ranks
from training_core.planner.plan import Plan
from training_core.runtime import attempt
from training_core.tasks.image_classification.features import FOLDER, Trunk
from training_core.tasks.image_classification.learner import Learner, Materials
from training_core.vision.data_loaders import open_feed
from training_core.vision.prefetch import Normalise

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parent / "results" / "small_data.md"
SAMPLE = ROOT / "examples" / "data" / "fashion-mnist-sample.zip"
LEARNED = ["t-shirt", "pullover", "coat", "shirt", "bag"]
OTHERS = ["trouser", "dress", "sandal", "sneaker", "ankle-boot"]
TRAIN_EACH, VALIDATION_EACH = 20, 10
FIRST_EPOCHS = {"small_cnn": 12, "resnet18": 3}
EPOCHS = {"small_cnn": 40, "resnet18": 20}
BATCH = 20

SCRATCH, TUNED = "from scratch", "fine-tuned, all layers"
NO_CACHE, COLD, WARM = "last layer, trunk in each epoch", "last layer, features made", "last layer, features found"
CONTENDERS = (SCRATCH, TUNED, NO_CACHE, COLD, WARM)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--networks", nargs="+", default=list(FIRST_EPOCHS))
    parser.add_argument("--one", nargs=2, metavar=("CONTENDER", "RUN_DIR"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        train_here(options.one[0], RunDir(Path(options.one[1])))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with zipfile.ZipFile(SAMPLE) as archive:
            archive.extractall(folder / "sample")
        results = {network: compete(folder, network, options.seeds) for network in options.networks}
    table = make_table(results, options.seeds)
    print(table)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(table)


def compete(folder: Path, network: str, seeds: int) -> dict[str, list[dict[str, float]]]:
    """Interleaved: every seed runs all contenders, one after the other."""
    learned = link_images(folder, "learned", LEARNED, seed=0, train=540, validation=60)
    run_dir = make_run(folder, learned, {"name": network}, epochs=FIRST_EPOCHS[network], seed=0, batch=64)
    train_apart(SCRATCH, run_dir)
    weights = reports_of(run_dir, CheckpointSaved)[-1].path
    results: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS}
    for seed in range(seeds):
        data = link_images(folder, f"few-{seed}", OTHERS, seed, train=TRAIN_EACH, validation=VALIDATION_EACH)
        for name in CONTENDERS:
            model = {"name": network} if name == SCRATCH else {"name": network, "weights": weights}
            if name in {NO_CACHE, COLD, WARM}:
                model["trainable"] = "head"
            run_dir = make_run(folder, data, model, epochs=EPOCHS[network], seed=seed, batch=BATCH)
            if name == COLD:
                shutil.rmtree(run_dir.read_prepared().folder / FOLDER, ignore_errors=True)
            results[name].append(train_apart(name, run_dir))
            print(network, seed, name, results[name][-1], file=sys.stderr)
    return results


def link_images(folder: Path, name: str, classes: list[str], seed: int, *, train: int, validation: int) -> Path:
    """A dataset with splits of its own; all test images of the classes."""
    target = folder / name
    random = np.random.default_rng(seed)
    for label in classes if not target.exists() else []:
        files = sorted((folder / "sample" / "train" / label).iterdir())
        chosen = [files[index] for index in random.permutation(len(files))[: train + validation]]
        parts = {"train": chosen[:train], "validation": chosen[train:]}
        parts["test"] = sorted((folder / "sample" / "test" / label).iterdir())
        for split, images in parts.items():
            (target / split / label).mkdir(parents=True)
            for image in images:
                os.link(image, target / split / label / image.name)
    return target


def make_run(folder: Path, data: Path, model: dict[str, Any], *, epochs: int, seed: int, batch: int) -> RunDir:
    """A run dir whose data is prepared."""
    training = {"epochs": epochs, "batch_size": batch, "seed": seed, "early_stopping": None}
    spec = JobSpec.model_validate(
        {
            "task": "image-classification",
            "dataset": {"uri": f"file://{data}"},
            "model": model,
            "training": training | {"augmentation": "none"},
        }
    )
    number = len(list(folder.glob("run-*")))
    run_dir = RunDir(folder / f"run-{number}")
    run_dir.path.mkdir()
    run = RunSpec(
        spec=spec,
        job_id=f"job-{number}",
        threads=1,
        store=f"file://{folder}/store",
        cache_dir=folder / "cache",
        data_roots=[folder],
    )
    run_dir.write_spec(run)
    command = [sys.executable, "-m", "training_core.runtime.launch", "--stage", "prepare", str(run_dir.path)]
    subprocess.run(command, cwd=ROOT, check=True)
    return run_dir


def train_apart(contender: str, run_dir: RunDir) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.data.small_data", "--one", contender, str(run_dir.path)]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    seconds: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    [summary] = reports_of(run_dir, Summary)
    return seconds | {"accuracy": summary.metrics["test/accuracy"]}


def reports_of(run_dir: RunDir, kind: type[Any]) -> list[Any]:
    reports = [decode(line) for line, _ in complete_lines(run_dir.events, 0)]
    return [report for report in reports if isinstance(report, kind)]


def train_here(contender: str, run_dir: RunDir) -> None:
    from torchvision import models  # noqa: F401, PLC0415  an import is not what is timed

    if contender == NO_CACHE:
        attempt.make_learner = trunk_in_each_epoch
    cpu, wall = time.process_time(), time.perf_counter()
    code = attempt.Attempt(run_dir).run()
    print(json.dumps({"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}))
    sys.exit(code)


class WholePass(nn.Module):
    """The frozen trunk and the head that learns, on images."""

    def __init__(self, trunk: Trunk) -> None:
        super().__init__()
        self.head, self._trunk = trunk.head, trunk

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self._trunk(images))
        return logits


def trunk_in_each_epoch(network: nn.Module, materials: Materials, plan: Plan, ranks: Ranks) -> Learner:
    """What a frozen trunk costs without the cache."""
    statistics = materials.statistics
    feed = open_feed(materials.data, plan, materials.run, ranks)
    normalise = Normalise(statistics.mean, statistics.deviation, ranks.device)
    return Learner(network, WholePass(Trunk(network)), feed, normalise)


def make_table(results: dict[str, dict[str, list[dict[str, float]]]], seeds: int) -> str:
    lines = [
        "# Small data: 20 images a class",
        "",
        f"`python -m benchmarks.data.small_data --seeds {seeds}` on {machine()}, {time.strftime('%Y-%m-%d')}.",
        "",
        f"Fashion-MNIST sample: the network learned {', '.join(LEARNED)} (540 images a class); it is transferred to "
        f"{', '.join(OTHERS)} with {TRAIN_EACH} training and {VALIDATION_EACH} validation images a class, batches of "
        f"{BATCH}, no augmentation. Medians of {seeds} seeds, each with images of its own; accuracy on 500 test images "
        "of the best epoch by validation. CPU seconds of the attempt's process on one thread, without imports, with "
        "the checkpoints.",
        "",
        "| network, epochs | contender | test accuracy (range) | CPU seconds | wall seconds | CPU, scratch = 1 |",
        "|---|---|---|---|---|---|",
    ]
    for network, contenders in results.items():
        scratch = statistics.median(one["cpu"] for one in contenders[SCRATCH])
        for name, runs in contenders.items():
            accuracies = sorted(one["accuracy"] for one in runs)
            cpu, wall = (statistics.median(one[key] for one in runs) for key in ("cpu", "wall"))
            lines.append(
                f"| {network}, {EPOCHS[network]} | {name} | {statistics.median(accuracies):.3f} ({accuracies[0]:.3f} - "
                f"{accuracies[-1]:.3f}) | {cpu:.2f} | {wall:.2f} | {cpu / scratch:.2f} |"
            )
    lines += [
        "",
        "The three last rows of a network train the same head on the same trunk: equal accuracy, and what they cost is "
        "what the cache is about. The trunks have seen five classes of the same small sample, no ImageNet: what "
        "trained weights gain in accuracy is more where they come from more data than this.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
