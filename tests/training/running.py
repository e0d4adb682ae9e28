"""Starts real trainings in real processes, and reads what they left."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from training_core.contract.outcome import Outcome
from training_core.contract.reports import AnyReport, CheckpointSaved, Metric, decode
from training_core.contract.run_dir import RunDir, RunSpec, complete_lines
from training_core.contract.spec import JobSpec

ROOT = Path(__file__).parents[2]

KEPT = "ckpt_00000000000000000000000001"  # the last checkpoint of the job `first` in the store, if it is there
NOBODYS = "ckpt_00000000000000000000000002"


def make_images(folder: Path, *, classes: int = 3, each: int = 24, side: int = 16) -> Path:
    """Grey stripes whose direction and width tell the class, with noise: easy to learn, and not at once."""
    random = np.random.default_rng(7)
    rows, columns = np.mgrid[0:side, 0:side]
    for label in range(classes):
        directory = folder / f"class-{label}"
        directory.mkdir(parents=True)
        pattern = 128 + 90 * np.sin((rows * (label + 1) + columns * (classes - label)) * 0.7)
        for number in range(each):
            noisy = pattern + random.normal(0, 60, (side, side))
            Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(directory / f"{number:03d}.png")
    return folder


@dataclass(frozen=True)
class Run:
    """A run dir and what happened in it."""

    dir: RunDir
    spec: RunSpec

    @property
    def reports(self) -> list[AnyReport]:
        """What is written so far; a line that is being written, or was cut short by a kill, waits."""
        return [decode(line) for line, _ in complete_lines(self.dir.events, 0)]

    @property
    def outcome(self) -> Outcome:
        outcome = self.dir.read_outcome()
        assert outcome is not None, "the run ended without an outcome"
        return outcome

    def kinds(self) -> list[str]:
        return [report.kind for report in self.reports]

    def of_kind(self, kind: str) -> list[Any]:
        return [report for report in self.reports if report.kind == kind]

    def series(self, name: str) -> list[tuple[int, float]]:
        return [(one.step, one.values[name]) for one in self.reports if isinstance(one, Metric) and name in one.values]

    def last_checkpoint(self) -> CheckpointSaved:
        saved: list[CheckpointSaved] = self.of_kind("checkpoint_saved")
        return max(saved, key=lambda one: one.step)  # an older one may be told again, with another reason to be kept

    def file(self, path: str) -> Path:
        """Of the store; an id may stand for the folder that it refers to."""
        first, _, rest = path.partition("/")
        return Path(self.spec.store.removeprefix("file://")) / self.spec.references.get(first, first) / rest

    def start(self, module: str = "training_core.runtime.launch", **environment: str) -> subprocess.Popen[bytes]:
        with self.dir.log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", module, str(self.dir.path)],
                cwd=ROOT,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def finish(self, module: str = "training_core.runtime.launch", timeout: float = 120) -> int:
        """Start, wait, and return the exit code."""
        with self.start(module) as process:
            try:
                return process.wait(timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                raise

    def log(self) -> str:
        return self.dir.log.read_text()


def make_run(folder: Path, data: str, *, training: dict[str, Any] | None = None, **changes: Any) -> Run:
    """A run dir below `folder`; `training` and the other changes override small defaults."""
    dataset = {
        "uri": data,
        "credentials": changes.pop("credentials", None),
        "split": {"validation": 0.25, "test": 0.125},
        **changes.pop("dataset", {}),
    }
    model = changes.pop("model", "small_cnn")
    # The planner knows that two ranks are slower than one process here; who asks for two wants two.
    strategy = "ddp" if changes.get("devices", 1) > 1 else "auto"
    compute = {"precision": changes.pop("precision", "auto"), "strategy": strategy, **changes.pop("compute", {})}
    spec = JobSpec.model_validate(
        {
            "task": "image-classification",
            "dataset": dataset,
            "model": {"name": model} if isinstance(model, str) else model,
            "compute": compute,
            "training": {"epochs": 3, "batch_size": 12, "early_stopping": None, **(training or {})},
        }
    )
    attempt = changes.get("attempt", 1)
    path = folder / f"run-{attempt}-{len(list(folder.glob('run-*')))}"
    path.mkdir(parents=True)
    defaults = {
        "store": f"file://{folder}/store",
        "cache_dir": folder / "cache",
        "data_roots": [folder],
        "allowed_networks": ["127.0.0.1"],
        "threads": 1,
    }
    kept = sorted((folder / "store/jobs/first").glob("trial-*/attempt-*/step-*"))
    references = {KEPT: str(kept[-1].relative_to(folder / "store"))} if kept else {}
    run = RunSpec(spec=spec, **{**defaults, "references": references, **changes})
    run_dir = RunDir(path)
    run_dir.write_spec(run)
    return Run(run_dir, run)
