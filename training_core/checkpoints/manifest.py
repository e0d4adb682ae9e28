"""What a checkpoint consists of, whose it is, and whether it is what was written. Torch-free.

The manifest is written last and ends in a seal, the hash of all before it: one flipped bit anywhere in a checkpoint
is seen, in the manifest itself too.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from training_core.contract.run_dir import RunSpec
from training_core.storage.store import Store, check_relative

MANIFEST, PINNED = "manifest.json", "pinned"
FORMAT = 2
_SEAL, _END = b',\n "seal": "', b'"\n}'
NAMED_DIFFERENCES = 3
# What makes the network, the data, the batches and the kind of optimizer state: weights can be taken over where it is
# the same.
ALIKE_IN_A_POPULATION = (
    "task.", "dataset.", "model.", "training.batch_size.", "training.epochs.", "training.image_size.",
    "training.optimizer.name.", "training.sampling.",
)  # fmt: skip
_FOLDER = re.compile(r"attempt-(\d+)/step-(\d+)$")


class Damaged(Exception):
    """A checkpoint that is not what was written, or has no manifest."""


class Foreign(Exception):
    """A sound checkpoint of another spec."""


class FileRecord(BaseModel):
    size: int
    sha256: str


class Manifest(BaseModel):
    """`about` describes the training for a reader: model, classes, preprocessing, compute plan, versions.

    `sharded` names, by kind of tensors (`model`), those that lie in pieces in the files `model-00001-of-00002`, in the
    order of the files, and the dimension to join them along; any other tensor is whole in one file.
    """

    format: int = FORMAT
    step: int
    spec_sha256: str
    spec: dict[str, Any]
    files: dict[str, FileRecord]
    sharded: dict[str, dict[str, int]] = Field(default_factory=dict)
    about: dict[str, Any]


def sealed(manifest: Manifest) -> bytes:
    body = manifest.model_dump_json(indent=1).encode()[: -len(b"\n}")]
    return body + _SEAL + hashlib.sha256(body).hexdigest().encode() + _END


def unsealed(content: bytes) -> Manifest:
    """Raises `Damaged` unless `content` is what `sealed` made, to the bit."""
    body, _, end = content.rpartition(_SEAL)
    if end != hashlib.sha256(body).hexdigest().encode() + _END:
        raise Damaged("its manifest is not what was written")
    try:
        manifest = Manifest.model_validate_json(body + b"\n}")
    except ValidationError as problem:
        raise Damaged("its manifest is not valid") from problem
    if manifest.format != FORMAT:
        raise Damaged(f"its format is {manifest.format}, and {FORMAT} can be read here")
    return manifest


def read_manifest(store: Store, path: str) -> Manifest:
    """Of the checkpoint at `path`. Raises `FileNotFoundError` where there is none, and `Damaged`."""
    return unsealed(store.read(f"{check_relative(path)}/{MANIFEST}"))


def folder_of(run: RunSpec, step: int) -> str:
    return f"{trial_folder(run)}/attempt-{run.attempt}/step-{step:08d}"


def trial_folder(run: RunSpec) -> str:
    return f"jobs/{run.job_id}/trial-{run.trial}"


def spec_json(run: RunSpec) -> dict[str, Any]:
    return run.spec.model_dump(mode="json", exclude_defaults=True)


def spec_sha256(run: RunSpec) -> str:
    return hashlib.sha256(run.spec.model_dump_json(exclude_defaults=True).encode()).hexdigest()


def is_own(path: str, manifest: Manifest, run: RunSpec) -> bool:
    """Whether this trial wrote it, by the spec that it has now."""
    return path.startswith(f"{trial_folder(run)}/") and manifest.spec_sha256 == spec_sha256(run)


def check_belongs(manifest: Manifest, run: RunSpec) -> None:
    """Raises `Foreign`, which names the fields that differ; with `adopt` only some must be the same."""
    if manifest.spec_sha256 == spec_sha256(run):
        return
    there, here = dict(_leaves(manifest.spec)), dict(_leaves(spec_json(run)))
    names = sorted(name for name in there | here if there.get(name) != here.get(name))
    if run.adopt:
        names = [name for name in names if f"{name}.".startswith(ALIKE_IN_A_POPULATION)]
    if not names:
        return
    told = [f"{name} is {_said(there, name)} there and {_said(here, name)} here" for name in names]
    more = f" and {len(told) - NAMED_DIFFERENCES} more" if len(told) > NAMED_DIFFERENCES else ""
    raise Foreign(f"it belongs to another spec: {', '.join(told[:NAMED_DIFFERENCES])}{more}")


def _said(values: dict[str, object], name: str) -> str:
    return repr(values[name]) if name in values else "the default"


def _leaves(content: dict[str, Any], above: str = "") -> Iterator[tuple[str, object]]:
    for name, value in content.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def is_folder(path: str) -> bool:
    """Whether `path`, within a trial, is that of a checkpoint, complete or not."""
    return _FOLDER.search(path) is not None


def candidates(store: Store, run: RunSpec) -> list[str]:
    """The checkpoints of this trial by all attempts, newest first."""
    found = [path.rpartition("/")[0] for path in store.find(trial_folder(run), MANIFEST)]
    return sorted(filter(is_folder, found), key=age, reverse=True)


def age(path: str) -> tuple[int, int]:
    """Orders the checkpoints of one trial by step, then by attempt."""
    found = _FOLDER.search(path)
    if found is None:
        raise ValueError(f"{path} is not the folder of a checkpoint")
    return int(found[2]), int(found[1])
