"""SIGKILL at a moment of a training, and the resumed training beside one that nobody disturbed."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.training.running import ROOT, Run, make_run
from tests.waiting import eventually
from training_core.checkpoints.manifest import is_folder
from training_core.runtime.launcher_protocol import Stage
from worker.launcher import Launcher
from worker.process import Process, environment
from worker.settings import Settings

CURVES = ("train/loss", "train/learning_rate", "validation/loss", "validation/accuracy", "test/loss", "test/accuracy")
TRAINING = {"epochs": 12, "checkpoint_every_steps": 2, "batch_size": 12, "keep_last_checkpoints": 2}


@contextmanager
def warm_launcher() -> Iterator[Launcher]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        launcher = Launcher(Settings(redis_url="redis://nowhere", store="file:///nowhere", device="cpu"))
        launcher.start()
        eventually(lambda: launcher.pid, 120)
        yield launcher
        launcher.stop()


@dataclass
class Kind:
    """Trainings that differ in nothing: on `ranks` ranks, in `precision`."""

    launcher: Launcher
    folder: Path
    images: Path
    ranks: int = 1
    precision: str = "fp32"
    model: str = "small_cnn"
    strategy: str = "auto"
    training: dict[str, Any] = field(default_factory=lambda: dict(TRAINING))
    number: int = 0

    def run(self, job: str, **changes: Any) -> Run:
        """Prepared, so that it can be trained at once."""
        (self.folder / job).mkdir(parents=True, exist_ok=True)
        run = make_run(
            self.folder / job,
            f"file://{self.images}",
            training=self.training,
            devices=self.ranks,
            precision=self.precision,
            model=self.model,
            **({"compute": {"strategy": self.strategy}} if self.strategy != "auto" else {}),
            job_id=job,
            cache_dir=self.folder / "cache",
            data_roots=[self.images.parent],
            **changes,
        )
        assert self.start(run, "prepare").wait(120) == 0, run.log()
        return run

    def start(self, run: Run, stage: Stage = "train") -> Process:
        variables = environment(device="cpu", slots=(), threads=1)
        # Somebody may edit the code while this runs: then a new launcher warms up.
        process = eventually(lambda: self.launcher.launch(run.dir, stage, variables), 120)
        assert process is not None
        return process

    def whole(self) -> Run:
        run = self.run("undisturbed")
        assert self.start(run).wait(300) == 0, run.log()
        return run

    def killed_after(self, seconds: float) -> Run | None:
        """None when it had ended by itself."""
        self.number += 1
        run = self.run(f"killed-{self.number}")
        process = self.start(run)
        if process.wait(seconds) is not None:
            return None
        return run if self.end(process) else None

    def killed_when(self, condition: Callable[[Run], object]) -> Run:
        self.number += 1
        run = self.run(f"killed-{self.number}")
        process = self.start(run)
        eventually(lambda: condition(run), 90, interval_seconds=0.001)
        assert self.end(process)
        return run

    @staticmethod
    def end(process: Process) -> bool:
        """False when it had come to its end by itself before the signal arrived."""
        process.signal(signal.SIGKILL)
        code = process.wait(60)
        assert code in {-signal.SIGKILL, 0}, code
        return code != 0

    def resumed(self, run: Run) -> Run:
        """From the newest checkpoint that was reported, as the book would have it."""
        saved = run.of_kind("checkpoint_saved") if run.dir.events.exists() else []
        newest = max((one.step, one.path) for one in saved)[1] if saved else None
        again = self.run(run.spec.job_id, attempt=2, resume_from=newest)
        assert self.start(again).wait(300) == 0, again.log()
        return again


def on_their_way(run: Run) -> int:
    """Checkpoints that the kill left half written."""
    folders = [one for one in run.file("jobs").rglob("step-*") if is_folder(one.as_posix())]
    return sum(not (one / "manifest.json").exists() for one in folders)


def tensors(run: Run, path: str) -> dict[str, bytes]:
    """All that a checkpoint holds but for the texts, which have times in them."""
    return {one.name: one.read_bytes() for one in run.file(path).glob("*.safetensors")}


def differences(whole: Run, resumed: Run) -> list[str]:
    """What of the curves, the final weights, the best ones and the summary is not the same to the bit."""
    found = [name for name in CURVES if resumed.series(name) != whole.series(name)]
    saved = "checkpoint_saved" in resumed.kinds()  # or it was killed after the last one
    last = resumed.last_checkpoint().path if saved else resumed.of_kind("started")[0].checkpoint
    best = [run.of_kind("summary")[0] for run in (resumed, whole)]
    for path, other in ((last, whole.last_checkpoint().path), (best[0].best_checkpoint, best[1].best_checkpoint)):
        if tensors(resumed, path) != tensors(whole, other):
            found.append(path)
    if best[0].metrics != best[1].metrics:
        found.append("summary")
    left = on_their_way(resumed)
    return [*found, f"{left} half-written checkpoints are left"] if left else found
