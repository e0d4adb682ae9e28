"""Datasets on disk and the preparation of them, as a run asks for it."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.data.pictures import image_file, photo
from training_core.contract.reports import AnyReport, DataReady, DataReported
from training_core.contract.run_dir import Prepared, RunSpec
from training_core.contract.spec import JobSpec
from training_core.vision.prepare import prepare

ROOT = Path(__file__).parents[2]


def make_photos(folder: Path, count: int = 24, kind: str = "PNG", **options: Any) -> Path:
    """`count` different photos in two class folders; `options` are those of `photo` or of the encoder."""
    sizes = {name: options.pop(name) for name in ("height", "width", "channels") if name in options}
    for number in range(count):
        directory = folder / ("cats", "dogs")[number % 2]
        directory.mkdir(parents=True, exist_ok=True)
        content = image_file(photo(seed=number, **sizes), kind, **options)
        (directory / f"{number:05}.{kind.lower()}").write_bytes(content)
    return folder


def make_run(folder: Path, data: str = "photos", **changes: Any) -> RunSpec:
    """`dataset` and `image_size` go into the spec, the rest into the run."""
    training = {"image_size": changes.pop("image_size", "auto")}
    dataset = {"uri": f"file://{folder}/{data}", **changes.pop("dataset", {})}
    spec = JobSpec.model_validate({"task": "image-classification", "dataset": dataset, "training": training})
    defaults = {"store": f"file://{folder}/store", "cache_dir": folder / "cache", "data_roots": [folder]}
    return RunSpec(spec=spec, **{**defaults, **changes})


@dataclass
class Said:
    """A preparation and its reports."""

    run: RunSpec
    prepared: Prepared | None = None
    reports: list[AnyReport] = field(default_factory=list)

    @property
    def ready(self) -> DataReady:
        [ready] = [one for one in self.reports if isinstance(one, DataReady)]
        return ready

    @property
    def reported(self) -> DataReported:
        [reported] = [one for one in self.reports if isinstance(one, DataReported)]
        return reported

    @property
    def folder(self) -> Path:
        assert self.prepared is not None
        return self.prepared.folder


def prepared(run: RunSpec) -> Said:
    said = Said(run)
    said.prepared = prepare(run, lambda: False, said.reports.append)
    return said


def digest(folder: Path) -> dict[str, str]:
    """What a prepared dataset is made of, without the selections."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir()) if path.is_file()
    }


SCRIPT = """
import os, signal, sys
from pathlib import Path
from training_core.vision import prepare, shards
from training_core.contract.run_dir import RunSpec
run, samples, seals = RunSpec.model_validate_json(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
shards.SHARD_SAMPLES = samples
seal = shards.ShardWriter.seal
def seal_and_die(writer):
    done = seal(writer)
    if writer._number + 1 == seals:
        os.kill(os.getpid(), signal.SIGKILL)
    return done
shards.ShardWriter.seal = seal_and_die
print(prepare.prepare(run, lambda: False, lambda report: print(report.model_dump_json())).folder)
assert "torch" not in sys.modules
"""


def start_preparing(run: RunSpec, *, shard_samples: int = 16, die_after: int = -1) -> subprocess.Popen[str]:
    """In a process of its own, with small shards; it kills itself when `die_after` of them are complete."""
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, run.model_dump_json(), str(shard_samples), str(die_after)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
