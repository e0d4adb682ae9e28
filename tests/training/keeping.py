"""Writes and reads real checkpoints of a small network, without a training around them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from training_core.checkpoints import resume
from training_core.checkpoints.checkpoint import Content
from training_core.checkpoints.manager import Checkpoints, Live
from training_core.checkpoints.train_state import TrainState
from training_core.contract.reporter import Reports
from training_core.contract.reports import AnyReport, decode
from training_core.contract.run_dir import EventsFile, RunSpec, complete_lines
from training_core.contract.spec import JobSpec
from training_core.storage.store import Store, open_store


def spec_of(**training: Any) -> JobSpec:
    content = {"task": "image-classification", "dataset": {"uri": "file://x"}, "training": training}
    return JobSpec.model_validate(content)


def network(width: int = 4) -> nn.Module:
    """With a channels-last filter, a batch norm and its counter: every kind of tensor that a checkpoint meets."""
    torch.manual_seed(width)
    layers = nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.Flatten(), nn.Linear(4 * width, 3))
    return layers.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


@dataclass
class Trained:
    """A network under training in the store below `folder`, and what was reported of it."""

    folder: Path
    run: RunSpec
    model: nn.Module = field(default_factory=network)
    state: TrainState = field(default_factory=TrainState)

    def __post_init__(self) -> None:
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-2)
        self.scaler = torch.amp.GradScaler("cpu", enabled=False)
        self.file = EventsFile(self.folder / f"events-{self.run.attempt}.jsonl")
        self.history = Reports(self.file)
        self.store: Store = open_store(self.run)
        self.checkpoints = self.keeper()

    def keeper(self, **options: Any) -> Checkpoints:
        self.checkpoints = Checkpoints(self.store, self.run, self.history, {"model": "small_cnn"}, **options)
        return self.checkpoints

    def step(self) -> None:
        self.optimizer.zero_grad()
        self.model(torch.randn(8, 3, 4, 4)).square().mean().backward()
        self.optimizer.step()
        self.state.step += 1
        self.history.metric(self.state.step, 0.5, {"train/loss": float(self.state.step)})

    @property
    def live(self) -> Live:
        return Live(self.model.state_dict(), None, self.optimizer, self.scaler)

    def save(self, steps: int = 1) -> str:
        """After so many steps more; returns the path, where the checkpoint will be once it is settled."""
        for _ in range(steps):
            self.step()
        self.checkpoints.save(self.live, self.state, 0.5)
        assert self.state.last_checkpoint is not None
        return self.state.last_checkpoint

    def settled(self, steps: int = 1) -> str:
        path = self.save(steps)
        self.checkpoints.settle()
        return path

    def resumed(self, path: str) -> tuple[str, Content | None]:
        run = self.run.model_copy(update={"resume_from": path, "attempt": self.run.attempt + 1})
        return resume.choose(self.store, run, self.history)

    def said(self, kind: str) -> list[Any]:
        found: list[AnyReport] = [decode(line) for line, _ in complete_lines(self.file_path, 0)]
        return [one for one in found if one.kind == kind]

    @property
    def file_path(self) -> Path:
        return self.folder / f"events-{self.run.attempt}.jsonl"

    def path(self, path: str) -> Path:
        return self.folder / "store" / path

    def there(self) -> list[str]:
        return sorted(one.parent.name for one in self.path("jobs").rglob("manifest.json"))

    def close(self) -> None:
        self.checkpoints.end()
        self.file.close()


def run_in(folder: Path, **changes: Any) -> RunSpec:
    defaults = {"spec": spec_of(), "store": f"file://{folder}/store", "cache_dir": folder, "job_id": "j"}
    return RunSpec(**{**defaults, **changes})
