"""What a model starts from, as far as it can be judged before the data is read. Torch-free."""

from __future__ import annotations

import hashlib
import tempfile
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from training_core.checkpoints.manifest import Damaged, read_manifest
from training_core.checkpoints.references import gone, place_of
from training_core.contract.errors import Failed, Reason
from training_core.contract.redaction import shown
from training_core.contract.run_dir import RunSpec
from training_core.contract.spec import JobSpec, ModelName
from training_core.contract.spec.part import WAY_OUT
from training_core.contract.spec.references import WEIGHTS
from training_core.outgoing import Denied, Networks
from training_core.planner.recipe import model_to_fetch
from training_core.storage.store import open_store
from training_core.vision import published_weights

if TYPE_CHECKING:
    from training_core.data.sources import Entry, Source

LARGEST_FILE_BYTES = 2**30
PIECE_BYTES = 2**22
WEIGHTS_FOLDER = "weights"
UNAVAILABLE_HINT = f"give {WAY_OUT}, or the URI of a safetensors file"


def is_uri(weights: str) -> bool:
    return "://" in weights


def check_origin(run: RunSpec) -> None:
    """Refuse what cannot work whatever the data is, and fetch published weights. For the preparing phase.

    Raises `Failed(unsupported)` and `Failed(weights_unavailable)`, each with the way out.
    """
    model = run.spec.model
    if model.trainable == "head":
        _check_head_alone(run.spec)
    if run.resume_from is not None:
        return  # the weights are in its own checkpoint
    if model.pretrained:
        published_weights.published_file(model_to_fetch(run.spec, run.device), Networks.of(run.allowed_networks))
    elif model.weights is not None and is_uri(model.weights):
        find_file(run, model.weights)
    elif model.weights is not None:
        read_about(run, model.weights)


def fetch_weights(run: RunSpec, folder: Path) -> Path | None:
    """A copy of the file that `model.weights` names by a URI, below the prepared data in `folder`; None for all else.

    So a training reads nothing from outside, and needs no secret. Raises as `find_file` does, but not where the
    training goes on from a checkpoint: what it began with may be gone by then.
    """
    weights = run.spec.model.weights
    if weights is None or not is_uri(weights):
        return None
    with suppress(Failed) if run.resume_from is not None else nullcontext():
        return _copy(run, weights, folder / WEIGHTS_FOLDER)
    return None


def _copy(run: RunSpec, uri: str, folder: Path) -> Path:
    """Under the hash of its content: two jobs share a copy, and neither can give the other something else."""
    source, entry = find_file(run, uri)
    folder.mkdir(exist_ok=True)
    digest, size = hashlib.sha256(), 0
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".", delete=False) as copy:
        try:
            with source.open(entry) as file:
                while size <= LARGEST_FILE_BYTES and (piece := file.read(PIECE_BYTES)):
                    digest.update(piece)
                    size += len(piece)
                    copy.write(piece)
            copy.flush()
            place = folder / f"{digest.hexdigest()}.safetensors"
            Path(copy.name).replace(place)
        except Failed as problem:
            raise weights_failed(problem) from problem
        finally:
            Path(copy.name).unlink(missing_ok=True)
    return place


def read_about(run: RunSpec, reference: str) -> dict[str, Any]:
    """What the manifest of a checkpoint says about its training.

    Raises `Failed(weights_unavailable)` when there is no checkpoint, and `Failed(checkpoint_invalid)`.
    """
    try:
        return read_manifest(open_store(run), place_of(run, reference, WEIGHTS)).about
    except (FileNotFoundError, NotADirectoryError) as problem:
        raise gone(WEIGHTS, reference, UNAVAILABLE_HINT) from problem
    except Damaged as problem:
        raise damaged(reference, problem) from problem


def damaged(reference: str, problem: Damaged) -> Failed:
    return Failed(
        Reason.CHECKPOINT_INVALID, f"{WEIGHTS}: {reference} cannot be used: {problem}", "name another checkpoint"
    )


def find_file(run: RunSpec, uri: str) -> tuple[Source, Entry]:
    """The one file at `uri`, where the dataset might lie too: same places allowed, same credentials.

    Raises `Failed(weights_unavailable)`.
    """
    from training_core.data.sources import open_source  # noqa: PLC0415  most trainings read no file here

    dataset = run.spec.dataset.model_copy(update={"uri": uri})
    spec = run.spec.model_copy(update={"dataset": dataset})
    try:
        source = open_source(run.model_copy(update={"spec": spec}), run.cache_dir)
        entry = next(source.entries(), None)
    except Failed as problem:
        raise weights_failed(problem) from problem
    if entry is None or not entry.path.endswith(".safetensors"):
        raise Failed(
            Reason.WEIGHTS_UNAVAILABLE, f"model.weights: {shown(uri)} is no safetensors file", UNAVAILABLE_HINT
        )
    if entry.size > LARGEST_FILE_BYTES:
        raise Failed(
            Reason.WEIGHTS_UNAVAILABLE,
            f"model.weights: {shown(uri)} has {entry.size >> 20:,} MiB, more than {LARGEST_FILE_BYTES >> 20:,}",
            UNAVAILABLE_HINT,
        )
    return source, entry


def weights_failed(problem: Failed) -> Failed:
    """The words of the sources are about a dataset; here they are about weights."""
    hint = problem.hint if isinstance(problem, Denied) else UNAVAILABLE_HINT
    return Failed(Reason.WEIGHTS_UNAVAILABLE, f"model.weights: {problem.message}", hint)


def model_of(about: dict[str, Any]) -> str | None:
    """The network's name as a manifest gives it; None where it is none of ours."""
    name = about.get("model")
    return str(name) if name in get_args(ModelName) and name != "auto" else None


def _check_head_alone(spec: JobSpec) -> None:
    """Features are of the plain images: whatever changes an image from epoch to epoch cannot reach the head."""
    training = spec.training
    problems = {
        f"training.augmentation.preset: {training.augmentation.preset}": training.augmentation.preset
        not in {"auto", "none"},
        "training.augmentation.mixup": training.augmentation.mixup > 0,
        "training.augmentation.cutmix": training.augmentation.cutmix > 0,
        "training.augmentation.check": training.augmentation.check,
        "training.sampling.buckets: shape": training.sampling.buckets == "shape",
    }
    for field in [field for field, wrong in problems.items() if wrong]:
        raise Failed(
            Reason.UNSUPPORTED,
            f"{field} does not go with model.trainable: head, where each image passes the frozen trunk once",
            "leave it out, or set model.trainable to all",
        )
