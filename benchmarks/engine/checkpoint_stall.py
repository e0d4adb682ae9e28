"""How long a training stands still for a checkpoint, and how long until it is safe: ours beside what others do.

    /work/bench-venv/bin/python -m benchmarks.engine.checkpoint_stall        # Lightning comes with the extra `bench`
    /work/bench-venv/bin/python -m benchmarks.engine.checkpoint_stall --quick

Every round saves the same network and AdamW state once with each contender, in turn, in one process; between two saves
everything is durable and the disk is quiet. The stall is the time until the call returns and the next step may begin.
The limit is what any snapshot must do, to copy the bytes once: measured with two flat tensors.
"""

from __future__ import annotations

import argparse
import gc
import os
import shutil
import statistics
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions

from benchmarks.data.machine import machine
from training_core.checkpoints.manager import Checkpoints, Live
from training_core.checkpoints.safetensors_file import size_bytes
from training_core.checkpoints.train_state import TrainState
from training_core.contract.reporter import Reports
from training_core.contract.run_dir import RunSpec
from training_core.contract.spec import JobSpec
from training_core.storage.store import open_store
from training_core.vision.networks import make_model

RESULTS = Path(__file__).parent / "results" / "checkpoint_stall.md"
MIB = 2**20


class Subject:
    """A network with an AdamW that has taken a step."""

    def __init__(self, name: str) -> None:
        torch.manual_seed(0)
        self.model = make_model(name, channels=3, classes=1000 if name != "small_cnn" else 10)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = torch.optim.AdamW(self.model.parameters())
        for parameter in self.model.parameters():
            parameter.grad = torch.full_like(parameter, 1e-3)
        self.optimizer.step()
        self.optimizer.zero_grad()
        state = self.optimizer.state_dict()["state"]
        flat = {f"{number}.{key}": one for number, entry in state.items() for key, one in entry.items()}
        self.bytes = size_bytes(self.model.state_dict()) + size_bytes(flat)

    def content(self) -> dict[str, Any]:
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}


class Contender(ABC):
    """`save` returns when training may go on, `wait` when what was saved would survive a power cut."""

    def __init__(self, name: str, subject: Subject, folder: Path) -> None:
        self.name, self.subject, self.folder = name, subject, folder
        self.number = 0
        folder.mkdir(parents=True)

    @abstractmethod
    def save(self) -> None: ...

    @abstractmethod
    def wait(self) -> None: ...

    def end(self) -> None:  # noqa: B027  who has no thread has nothing to do
        """Let go of threads."""

    def next_path(self) -> Path:
        self.number += 1
        return self.folder / f"checkpoint-{self.number}"

    def tidy(self) -> None:
        """Delete all but the last."""
        for path in self.folder.glob("checkpoint-*"):
            if path.name != f"checkpoint-{self.number}":
                shutil.rmtree(path) if path.is_dir() else path.unlink()


class Ours(Contender):
    def __init__(self, name: str, subject: Subject, folder: Path) -> None:
        super().__init__(name, subject, folder)
        spec = JobSpec.model_validate({"task": "image-classification", "dataset": {"uri": "file://x"}})
        run = RunSpec(spec=spec, store=f"file://{folder}", cache_dir=folder)
        self.checkpoints = Checkpoints(open_store(run), run, Reports(None), {})
        self.state = TrainState()
        self.scaler = torch.amp.GradScaler("cpu", enabled=False)

    def save(self) -> None:
        self.state.step += 1
        live = Live(self.subject.model.state_dict(), None, self.subject.optimizer, self.scaler)
        self.checkpoints.save(live, self.state, 1.0)

    def wait(self) -> None:
        self.checkpoints.settle()

    def end(self) -> None:
        self.checkpoints.end()


class OursAtOnce(Ours):
    def save(self) -> None:
        super().save()
        super().wait()


class TorchSave(Contender):
    """With the `fsync` that makes it comparable."""

    def save(self) -> None:
        with self.next_path().open("wb") as file:
            torch.save(self.subject.content(), file)
            file.flush()
            os.fsync(file.fileno())

    def wait(self) -> None:
        pass


class Lightning(Contender):
    def __init__(self, name: str, subject: Subject, folder: Path) -> None:
        super().__init__(name, subject, folder)
        from lightning.pytorch.plugins.io import AsyncCheckpointIO, TorchCheckpointIO  # noqa: PLC0415  may be missing

        self.io = AsyncCheckpointIO(TorchCheckpointIO())

    def save(self) -> None:
        self.path = self.next_path()
        self.io.save_checkpoint(self.subject.content(), str(self.path))

    def wait(self) -> None:
        self.io._executor.submit(lambda: None).result()
        sync(self.path)

    def end(self) -> None:
        self.io.teardown()


class Dcp(Contender):
    """`async_save` with a stager that keeps its buffers, as its manual advises for speed."""

    stager: Any = None

    def save(self) -> None:
        if self.stager is None:
            options = StagingOptions(
                use_pinned_memory=False, use_shared_memory=True, use_async_staging=False, use_non_blocking_copy=False
            )
            self.stager = DefaultStager(options)
        self.path = self.next_path()
        done = dcp.async_save(self.subject.content(), checkpoint_id=self.path, async_stager=self.stager, no_dist=True)
        self.future: Future[Any] = done  # type: ignore[assignment]

    def wait(self) -> None:
        self.future.result()

    def end(self) -> None:
        self.stager.close()


def sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


CONTENDERS: dict[str, Callable[[str, Subject, Path], Contender]] = {
    "ours": Ours,
    "ours, waited for": OursAtOnce,
    "torch.save + fsync": TorchSave,
    "Lightning AsyncCheckpointIO": Lightning,
    "DCP async_save": Dcp,
}


@contextmanager
def contenders(subject: Subject, folder: Path) -> Iterator[list[Contender]]:
    made = []
    for number, (name, kind) in enumerate(CONTENDERS.items()):
        try:
            made.append(kind(name, subject, folder / str(number)))
        except ImportError:
            print(f"{name} is not installed here")
    yield made
    for one in made:
        one.end()


def copy_seconds(size: int, rounds: int) -> float:
    source, target = torch.ones(size, dtype=torch.uint8), torch.zeros(size, dtype=torch.uint8)
    return statistics.median(seconds(lambda: target.copy_(source)) for _ in range(max(3, rounds)))


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure(name: str, rounds: int) -> list[str]:
    subject = Subject(name)
    stalls: dict[str, list[float]] = {}
    safe: dict[str, list[float]] = {}
    cpu: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder, contenders(subject, Path(folder)) as all_of_them:
        for _ in range(rounds + 1):
            for one in all_of_them:
                gc.collect()
                os.sync()
                start, start_cpu = time.perf_counter(), time.process_time()
                one.save()
                stalled = time.perf_counter()
                one.wait()
                stalls.setdefault(one.name, []).append(stalled - start)
                safe.setdefault(one.name, []).append(time.perf_counter() - start)
                cpu.setdefault(one.name, []).append(time.process_time() - start_cpu)
                one.tidy()
    copy = copy_seconds(subject.bytes, rounds)
    plain = statistics.median(stalls["torch.save + fsync"][1:])
    rows = [
        f"\n## {name}, AdamW: {subject.bytes / MIB:,.1f} MiB\n",
        "| | stall, ms (median) | of `torch.save` + fsync | x the copy | first stall, ms | safe after, ms | CPU, ms |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for one in stalls:
        stall = statistics.median(stalls[one][1:])
        after, work = statistics.median(safe[one][1:]), statistics.median(cpu[one][1:])
        rows.append(
            f"| {one} | {stall * 1e3:,.2f} | {stall / plain:.1%} | {stall / copy:,.1f} | {stalls[one][0] * 1e3:,.2f} "
            f"| {after * 1e3:,.1f} | {work * 1e3:,.1f} |"
        )
    rows.append(f"| limit: one copy of the bytes | {copy * 1e3:,.2f} | {copy / plain:.1%} | 1.0 | | | |")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three rounds instead of nine; keeps no result")
    arguments = parser.parse_args()
    rounds = 3 if arguments.quick else 9
    rows = [
        "# Checkpoint stall\n",
        f"`python -m benchmarks.engine.checkpoint_stall`; {machine()}; torch {torch.__version__}, "
        f"{torch.get_num_threads()} threads, {rounds} rounds after one to warm up.",
    ]
    for name in ("resnet50", "small_cnn"):
        rows += measure(name, rounds)
    text = "\n".join(rows) + "\n"
    print(text)
    if not arguments.quick:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(text)


if __name__ == "__main__":
    main()
