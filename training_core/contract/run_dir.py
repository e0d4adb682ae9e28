"""The folder through which the worker and the training processes talk. Torch-free.

spec.json       RunSpec, written by the worker (or by hand: `python -m training_core.train RUN_DIR` needs no more)
events.jsonl    reports in one sequence (see `reports.py`): the worker's `claimed` first, then rank 0 of the training,
                and when that has ended the worker's `finished`; never two writers at once. It is the spool from
                which the worker's journal sends
prepared.json   Prepared, written by the launcher: where the ranks find the data
plan.json       ComputePlan, written before any rank starts: how many there are, and how they compute
outcome.json    Outcome, written once, atomically, by the run
stop            exists: please checkpoint and end
profile         exists: please trace a few steps with torch.profiler; removed by who does it
log.txt         standard output and error of all ranks
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Literal

from pydantic import BaseModel, ConfigDict, Field

from training_core.contract.compute_plan import ComputePlan
from training_core.contract.credentials import Credentials
from training_core.contract.outcome import Outcome
from training_core.contract.reports import AnyReport, decode, encode
from training_core.contract.spec import JobSpec, Work

LoaderKind = Literal["auto", "threads", "process", "dali"]


class RunSpec(BaseModel):
    """One attempt as the training process sees it. Paths are absolute; `store` is an fsspec URI.

    `resume_from` and every checkpoint path are relative to `store`. `data_roots` are the only folders that
    `file://` may read; a relative `file://` path starts at the first of them. `private_dirs`, like the store and the
    cache, are never read as data, wherever they lie. The preparation may take `preparation_memory_bytes`; 0 stands for
    a quarter of the host's memory. `allowed_uris` are prefixes of the other URIs that may be read (`s3://pets/`);
    without any, every bucket may be, and no web address. `allowed_networks` are networks
    and hosts beside the public internet that connections may go to. Prepared data beyond
    `cache_bytes` is deleted, least recently used first; 0 stands for half of the disk. `loader` says who makes the
    batches: threads of the rank, one process of threads beside it (with a GPU), or DALI where it is installed.
    `secret` is what the data is read with, and is never written down. What a `private` run prepares is its project's
    alone. By hand, `credentials_file` has named credentials; `store_credentials_file` has the store's own, as `store`.
    `train_seconds` is how long the devices may be held: by then the worker asks for a last checkpoint. `share` is the
    part of one device that is this run's. `rung` and `until`, a fraction of the whole training, say where it ends for
    now, with a checkpoint; `adopt` that `resume_from` may be of another spec, whose weights, optimizer state and place
    in the training are taken over. `references` gives the place below the store of each id that the spec names.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    job_id: str = "local"
    project: str = "default"
    trial: int = 0
    attempt: int = 1
    work: Work = "train"
    spec: JobSpec
    references: dict[str, str] = Field(default_factory=dict)
    device: str = Field(default="cpu", pattern="^(cpu|cuda)$")
    devices: int = Field(default=1, ge=1)
    threads: int = Field(default=0, ge=0, description="CPU threads of each rank; 0 takes the cores allowed / devices")
    store: str
    cache_dir: Path
    cache_bytes: int = Field(default=0, ge=0)
    data_roots: list[Path] = Field(default_factory=list)
    private_dirs: list[Path] = Field(default_factory=list)
    preparation_memory_bytes: int = Field(default=0, ge=0)
    allowed_uris: list[str] = Field(default_factory=list)
    allowed_networks: list[str] = Field(default_factory=list)
    private: bool = False
    secret: Credentials | None = Field(default=None, exclude=True, repr=False)
    credentials_file: Path | None = None
    store_credentials_file: Path | None = None
    resume_from: str | None = None
    loader: LoaderKind = "auto"
    train_seconds: float | None = Field(default=None, ge=0)
    share: float = Field(default=1.0, gt=0, le=1)
    rung: int | None = Field(default=None, ge=0)
    until: float | None = Field(default=None, gt=0, le=1)
    adopt: bool = False

    @property
    def readers(self) -> str | None:
        """The project whose alone the data is, as far as this host knows; None where all of its projects may read it.

        Listing is not reading, and a store that is asked with a project's own credentials may tell what it likes: it
        is no proof that its owner may have what others prepared.
        """
        return self.project if self.private or self.spec.dataset.credentials is not None else None


class Prepared(BaseModel):
    """The prepared form `folder`, and `selection`, the file of the indices into it by split.

    `weights` is the copy of the file that `model.weights` names by a URI: the training reads nothing from outside.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: Path
    selection: Path
    weights: Path | None = None
    seconds: float = 0.0


class RunDir:
    """Names inside a run dir, atomic writes, and nothing else."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.spec = path / "spec.json"
        self.events = path / "events.jsonl"
        self.prepared = path / "prepared.json"
        self.plan = path / "plan.json"
        self.outcome = path / "outcome.json"
        self.stop = path / "stop"
        self.profile = path / "profile"
        self.log = path / "log.txt"

    def read_spec(self) -> RunSpec:
        return RunSpec.model_validate_json(self.spec.read_bytes())

    def write_spec(self, run: RunSpec) -> None:
        write_atomically(self.spec, run.model_dump_json(indent=2).encode())

    def read_prepared(self) -> Prepared:
        return Prepared.model_validate_json(self.prepared.read_bytes())

    def write_prepared(self, prepared: Prepared) -> None:
        write_atomically(self.prepared, prepared.model_dump_json().encode())

    def read_plan(self) -> ComputePlan:
        return ComputePlan.model_validate_json(self.plan.read_bytes())

    def write_plan(self, plan: ComputePlan) -> None:
        # No attempt outlives a power cut, and the start of one should not wait for a disk.
        write_atomically(self.plan, plan.model_dump_json(indent=2).encode(), durable=False)

    def read_outcome(self) -> Outcome | None:
        """None when the run ended without a word."""
        try:
            return Outcome.model_validate_json(self.outcome.read_bytes())
        except FileNotFoundError:
            return None

    def write_outcome(self, outcome: Outcome) -> None:
        """The first outcome stays: a later one, from a rank that fell because another did, is dropped."""
        with suppress(FileExistsError), new_file(self.outcome, replace=False) as file:
            file.write(outcome.model_dump_json().encode())

    def request_stop(self) -> None:
        self.stop.touch()

    def stop_requested(self) -> bool:
        return self.stop.exists()

    def request_profile(self) -> None:
        self.profile.touch()


class EventsFile:
    """Appends reports to `events.jsonl`, each with the next number and the time, whole lines only.

    Opening it mends what a killed writer left behind: a last line without its line feed is cut off.
    """

    def __init__(self, path: Path) -> None:
        self.last_seq = 0
        end = 0
        for line, end in complete_lines(path, 0):  # noqa: B007  the last offset is what we keep
            self.last_seq = decode(line).seq
        self._file = path.open("ab", buffering=0)
        self._file.truncate(end)

    def append(self, report: AnyReport) -> AnyReport:
        """Write `report` under the next number; returns it as written."""
        numbered = report.model_copy(update={"seq": self.last_seq + 1, "at": time.time()})
        self._file.write(encode(numbered).encode() + b"\n")
        self.last_seq += 1
        return numbered

    def sync(self) -> None:
        """Survive a power cut up to here."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> EventsFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def write_atomically(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Readers see the old file or the new one, also after a power cut unless it is not to be `durable`."""
    with new_file(path, durable=durable) as file:
        file.write(content)


@contextmanager
def new_file(path: Path, *, replace: bool = True, durable: bool = True) -> Iterator[BinaryIO]:
    """Write piece by piece; the file is there, whole and durable, when the block has ended, and not after an error.

    Without `replace` raises `FileExistsError` when there is one by then. Without `durable` a power cut may take it away
    or leave it empty, until `make_durable`.
    """
    temporary = path.with_name(f".{path.name}.{threading.get_native_id()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        if replace:
            temporary.replace(path)
        else:
            path.hardlink_to(temporary)
    finally:
        temporary.unlink(missing_ok=True)
    if durable:
        make_durable(path.parent)


def make_durable(path: Path) -> None:
    """What a file holds, or which files a folder has."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def complete_lines(path: Path, offset: int) -> Iterator[tuple[bytes, int]]:
    """Lines that end in a line feed from `offset` on, each with the offset behind it; a half-written one waits."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                return
            offset += len(line)
            yield line[:-1], offset
