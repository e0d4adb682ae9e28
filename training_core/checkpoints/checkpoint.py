"""Complete, verified checkpoints: tensors in safetensors, the rest in JSON, the manifest last.

jobs/<job>/trial-<n>/attempt-<n>/step-<step>/
    model.safetensors      as it is judged: the averaged weights where weights are averaged
    raw.safetensors        as it is trained, where that differs
    optimizer.safetensors  `<parameter number>.<name>`
    state.json             history.jsonl  manifest.json
Sharded, each rank writes `model-00001-of-00002.safetensors` and so on, all by rank and number of ranks.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load

from training_core.checkpoints import safetensors_file
from training_core.checkpoints.manifest import (
    MANIFEST,
    Damaged,
    FileRecord,
    Manifest,
    check_belongs,
    is_own,
    read_manifest,
    sealed,
)
from training_core.checkpoints.snapshot import Snapshot
from training_core.checkpoints.train_state import TrainState
from training_core.contract.reports import Metric, decode
from training_core.contract.run_dir import RunSpec
from training_core.distributed.sharding import cut_like, join
from training_core.distributed.tensors import Tensors
from training_core.storage.store import Store, check_relative

STATE, HISTORY = "state.json", "history.jsonl"
Records = dict[str, FileRecord]


@dataclass
class Content:
    """A checkpoint in memory, all tensors whole. `raw` are the weights as trained where `model` is another one.

    `optimizer` holds `<parameter number>.<name>` tensors, `numbers` what else it keeps under such names.
    `about` and `spec` are what the manifest says. `adopted`: another trial wrote it, or this one with other parameters.
    """

    model: Tensors
    raw: Tensors | None
    optimizer: Tensors
    numbers: dict[str, float]
    groups: list[dict[str, Any]]
    scaler: dict[str, Any]
    state: TrainState
    history: list[Metric]
    about: dict[str, Any] = field(default_factory=dict)
    spec: dict[str, Any] = field(default_factory=dict)
    adopted: bool = False

    @property
    def trained(self) -> Tensors:
        """The weights that the training goes on with."""
        return self.model if self.raw is None else self.raw


@dataclass(frozen=True)
class Saved:
    path: str
    files: dict[str, int]
    sha256: dict[str, str]


def write_tensors(store: Store, path: str, snapshot: Snapshot, rank: int = 0, world_size: int = 1) -> Records:
    """The tensor files of one rank, each hashed while it is written."""
    records = {}
    for kind, tensors in snapshot.tensors.items():
        name = tensor_file(kind, rank, world_size if kind in snapshot.sharded else 1)
        digest, size = hashlib.sha256(), 0
        # Rank 0 makes all that this host wrote durable at once.
        with store.create(f"{path}/{name}", durable=rank > 0) as file:
            for piece in safetensors_file.pieces(tensors):
                digest.update(piece)
                file.write(piece)
                size += len(piece)
        records[name] = FileRecord(size=size, sha256=digest.hexdigest())
    return records


def finish(store: Store, path: str, texts: dict[str, bytes], manifest: Manifest) -> Saved:
    """Write what rank 0 alone knows, and then the manifest: it has the files of all ranks already."""
    files = dict(manifest.files)
    for name, text in texts.items():
        store.write(f"{path}/{name}", text, durable=False)
        files[name] = FileRecord(size=len(text), sha256=hashlib.sha256(text).hexdigest())
    content = sealed(manifest.model_copy(update={"files": files}))
    store.complete(path, MANIFEST, content)
    files[MANIFEST] = FileRecord(size=len(content), sha256=hashlib.sha256(content).hexdigest())
    sizes = {name: record.size for name, record in files.items()}
    return Saved(path, sizes, {name: record.sha256 for name, record in files.items()})


def tensor_file(kind: str, rank: int, world_size: int) -> str:
    return f"{kind}.safetensors" if world_size == 1 else f"{kind}-{rank + 1:05d}-of-{world_size:05d}.safetensors"


def read(store: Store, path: str, run: RunSpec) -> Content:
    """Raises `Damaged` unless every file is what the manifest says, and `Foreign` for one of another spec."""
    path = check_relative(path)
    try:
        manifest = read_manifest(store, path)
        check_belongs(manifest, run)
        extra = json.loads(_verified(store, path, manifest, STATE))
        history = _verified(store, path, manifest, HISTORY)
        return Content(
            model=_tensors(store, path, manifest, "model"),
            raw=_tensors(store, path, manifest, "raw") or None,
            optimizer=_tensors(store, path, manifest, "optimizer"),
            numbers=extra["numbers"],
            groups=extra["groups"],
            scaler=extra["scaler"],
            state=TrainState.from_json(extra["state"]),
            history=[_metric(line) for line in history.splitlines()],
            about=manifest.about,
            spec=manifest.spec,
            adopted=run.adopt and not is_own(path, manifest, run),
        )
    except (FileNotFoundError, NotADirectoryError) as problem:
        raise Damaged("a file is missing") from problem
    except (ValidationError, SafetensorError, ValueError, KeyError, TypeError) as problem:
        raise Damaged(f"its content is not valid ({type(problem).__name__})") from problem


def read_model(store: Store, path: str) -> tuple[Tensors, dict[str, Any]]:
    """The model out of a checkpoint of any training, and what its manifest says about that training.

    Raises `FileNotFoundError` when there is no checkpoint at `path`, and `Damaged`.
    """
    path = check_relative(path)
    manifest = read_manifest(store, path)
    try:
        return _tensors(store, path, manifest, "model"), manifest.about
    except FileNotFoundError as problem:
        raise Damaged("a file is missing") from problem
    except (SafetensorError, ValueError, KeyError) as problem:
        raise Damaged(f"its content is not valid ({type(problem).__name__})") from problem


def _tensors(store: Store, path: str, manifest: Manifest, kind: str) -> Tensors:
    names = sorted(name for name in manifest.files if name.split(".")[0].split("-")[0] == kind)
    parts = [load(_verified(store, path, manifest, name)) for name in names]
    return join(parts, manifest.sharded.get(kind, {}))


def _verified(store: Store, path: str, manifest: Manifest, name: str) -> bytes:
    content, record = store.read(f"{path}/{name}"), manifest.files[name]
    if len(content) != record.size or hashlib.sha256(content).hexdigest() != record.sha256:
        raise Damaged(f"{name} is not what the manifest says")
    return content


def _metric(line: bytes) -> Metric:
    report = decode(line)
    if not isinstance(report, Metric):
        raise ValueError(f"a {report.kind} in a history of metrics")
    return report


def optimizer_parts(optimizer: torch.optim.Optimizer) -> tuple[Tensors, dict[str, float], list[dict[str, Any]]]:
    """Tensors and plain numbers of its state by `<parameter number>.<name>`, and its parameter groups."""
    content = optimizer.state_dict()
    state: Mapping[int, Mapping[str, Any]] = content["state"]
    entries = {
        f"{number}.{name}": value for number, one in state.items() for name, value in one.items() if value is not None
    }
    tensors = {key: value for key, value in entries.items() if isinstance(value, torch.Tensor)}
    numbers = {key: value for key, value in entries.items() if key not in tensors}
    return tensors, numbers, content["param_groups"]


def restore_optimizer(optimizer: torch.optim.Optimizer, content: Content) -> None:
    parameters = sum(len(group["params"]) for group in optimizer.param_groups)
    state = optimizer_state(optimizer, content, range(parameters))
    optimizer.load_state_dict({"state": state, "param_groups": content.groups})


def optimizer_state(
    optimizer: torch.optim.Optimizer, content: Content, numbers: Sequence[int]
) -> dict[int, dict[str, Any]]:
    """What `content` keeps for each parameter; `numbers` says which of `optimizer` parameter 0, 1, … there is.

    In the memory layout of the parameters: another one could round differently.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    for key, value in {**content.optimizer, **content.numbers}.items():
        there, _, name = key.partition(".")
        number = numbers[int(there)]
        if isinstance(value, torch.Tensor) and value.shape == parameters[number].shape:
            value = cut_like(value, parameters[number])  # noqa: PLW2901
        state.setdefault(number, {})[name] = value
    return state
