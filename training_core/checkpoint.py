"""Complete, verified checkpoints: tensors in safetensors, the rest in JSON, the manifest last.

jobs/<job>/trial-<n>/attempt-<n>/step-<step>/model.safetensors  optimizer.safetensors  state.json
                                             history.jsonl      manifest.json
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

import torch
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from training_core.events import Metric, decode, encode
from training_core.rundir import RunSpec
from training_core.state import TrainState
from training_core.store import Store, check_relative
from training_core.tensors import Tensors

MANIFEST, MODEL = "manifest.json", "model.safetensors"


class FileRecord(BaseModel):
    size: int
    sha256: str


class Manifest(BaseModel):
    """`about` describes the training for a reader: model, classes, preprocessing, versions."""

    format: int = 1
    step: int
    spec_sha256: str
    files: dict[str, FileRecord]
    about: dict[str, Any]


class Damaged(Exception):
    """A checkpoint that is not what its manifest says, or has none."""


@dataclass
class Content:
    """A checkpoint in memory. `optimizer` holds `<parameter number>.<name>` tensors, `about` what the manifest says."""

    model: Tensors
    optimizer: Tensors
    groups: list[dict[str, Any]]
    scaler: dict[str, Any]
    state: TrainState
    history: list[Metric]
    about: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Saved:
    path: str
    files: dict[str, int]
    sha256: str


def folder_of(run: RunSpec, step: int) -> str:
    return f"{trial_folder(run)}/attempt-{run.attempt}/step-{step:08d}"


def trial_folder(run: RunSpec) -> str:
    return f"jobs/{run.job_id}/trial-{run.trial}"


def spec_sha256(run: RunSpec) -> str:
    return hashlib.sha256(run.spec.model_dump_json(exclude_defaults=True).encode()).hexdigest()


def write(store: Store, path: str, content: Content, run: RunSpec, about: dict[str, Any]) -> Saved:
    """Write every file, then the manifest. What an interrupted run of the same attempt left at `path` goes first."""
    state = {"state": content.state.to_json(), "groups": content.groups, "scaler": content.scaler}
    files = {
        "model.safetensors": save(content.model),
        "optimizer.safetensors": save(content.optimizer),
        "state.json": json.dumps(state, allow_nan=True).encode(),
        "history.jsonl": b"".join(encode(point).encode() + b"\n" for point in content.history),
    }
    records = {
        name: FileRecord(size=len(data), sha256=hashlib.sha256(data).hexdigest()) for name, data in files.items()
    }
    manifest = Manifest(step=content.state.step, spec_sha256=spec_sha256(run), files=records, about=about)
    encoded = manifest.model_dump_json(indent=1).encode()
    store.delete(path, MANIFEST)
    for name, data in files.items():
        store.write(f"{path}/{name}", data)
    store.write(f"{path}/{MANIFEST}", encoded)
    sizes = {name: len(data) for name, data in files.items()} | {MANIFEST: len(encoded)}
    return Saved(path, sizes, hashlib.sha256(encoded).hexdigest())


def read(store: Store, path: str, run: RunSpec) -> Content:
    """Raises `Damaged` unless every file is what the manifest says and belongs to the spec of `run`."""
    path = check_relative(path)
    try:
        manifest = Manifest.model_validate_json(store.read(f"{path}/{MANIFEST}"))
        if manifest.spec_sha256 != spec_sha256(run):
            raise Damaged("it belongs to another spec")
        files = {name: _verified(store, f"{path}/{name}", record) for name, record in manifest.files.items()}
        extra = json.loads(files["state.json"])
        return Content(
            model=load(files["model.safetensors"]),
            optimizer=load(files["optimizer.safetensors"]),
            groups=extra["groups"],
            scaler=extra["scaler"],
            state=TrainState.from_json(extra["state"]),
            history=[_metric(line) for line in files["history.jsonl"].splitlines()],
            about=manifest.about,
        )
    except FileNotFoundError as problem:
        raise Damaged("a file is missing") from problem
    except (ValidationError, SafetensorError, ValueError, KeyError, TypeError) as problem:
        raise Damaged(f"its content is not valid ({type(problem).__name__})") from problem


def read_model(store: Store, path: str) -> tuple[Tensors, dict[str, Any]]:
    """The model out of a checkpoint of any training, and what its manifest says about that training.

    Raises `FileNotFoundError` when there is no checkpoint at `path`, and `Damaged`.
    """
    path = check_relative(path)
    content = store.read(f"{path}/{MANIFEST}")
    try:
        manifest = Manifest.model_validate_json(content)
        file = f"{path}/{MODEL}"
        return load(_verified(store, file, manifest.files[MODEL])), manifest.about
    except FileNotFoundError as problem:
        raise Damaged("a file is missing") from problem
    except (ValidationError, SafetensorError, KeyError) as problem:
        raise Damaged(f"its content is not valid ({type(problem).__name__})") from problem


def _verified(store: Store, path: str, record: FileRecord) -> bytes:
    content = store.read(path)
    if len(content) != record.size or hashlib.sha256(content).hexdigest() != record.sha256:
        raise Damaged(f"{path.rsplit('/', 1)[-1]} is not what the manifest says")
    return content


def _metric(line: bytes) -> Metric:
    report = decode(line)
    if not isinstance(report, Metric):
        raise ValueError(f"a {report.kind} in a history of metrics")
    return report


def candidates(store: Store, run: RunSpec) -> list[str]:
    """The checkpoints of this trial by all attempts, newest first."""
    found = [path.rpartition("/")[0] for path in store.find(trial_folder(run), MANIFEST)]
    return sorted(found, key=_age, reverse=True)


def _age(path: str) -> tuple[int, int]:
    attempt, step = path.rsplit("/", 2)[-2:]
    return int(step.removeprefix("step-")), int(attempt.removeprefix("attempt-"))


def model_tensors(model: nn.Module) -> Tensors:
    """Copies on the host, in plain layout."""
    return {name: _plain(tensor) for name, tensor in model.state_dict().items()}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> tuple[Tensors, list[dict[str, Any]]]:
    content = optimizer.state_dict()
    tensors = {
        f"{number}.{name}": _plain(value)
        for number, one in content["state"].items()
        for name, value in one.items()
        if value is not None
    }
    return tensors, content["param_groups"]


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Tensors, groups: list[dict[str, Any]]) -> None:
    """In the memory layout of the parameters: another one could round differently."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        number, _, name = key.partition(".")
        parameter = parameters[int(number)]
        if tensor.shape == parameter.shape:
            tensor = torch.empty_like(parameter, dtype=tensor.dtype).copy_(tensor)  # noqa: PLW2901
        state.setdefault(int(number), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().to("cpu", copy=True).contiguous()
