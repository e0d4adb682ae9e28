"""The teacher that a spec names, as far as it can be judged without its weights: by its checkpoint's description."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from training_core.checkpoints.manifest import Damaged, read_manifest
from training_core.checkpoints.references import gone, place_of
from training_core.contract.errors import Failed, Reason
from training_core.contract.run_dir import RunSpec
from training_core.contract.spec.part import WAY_OUT
from training_core.contract.spec.references import TEACHER
from training_core.data.meta import read_meta
from training_core.storage.store import open_store

FIELD = TEACHER
HINT = f"give {WAY_OUT}, that was trained on these classes"
NAMED_CLASSES = 3


def find_teacher(run: RunSpec) -> dict[str, Any] | None:
    """What the checkpoint says about itself; None where no teacher is wanted.

    Raises `Failed(weights_unavailable)` when there is no checkpoint, and `Failed(checkpoint_invalid)`.
    """
    wanted = run.spec.training.distillation
    if wanted is None:
        return None
    try:
        return read_manifest(open_store(run), place_of(run, wanted.teacher, FIELD)).about
    except (FileNotFoundError, NotADirectoryError) as problem:
        raise no_teacher(wanted.teacher) from problem
    except Damaged as problem:
        raise damaged_teacher(wanted.teacher, problem) from problem


def no_teacher(reference: str) -> Failed:
    return gone(FIELD, reference, HINT)


def damaged_teacher(reference: str, problem: Damaged) -> Failed:
    return Failed(Reason.CHECKPOINT_INVALID, f"{FIELD}: {reference} cannot be used: {problem}", HINT)


def check_teacher(run: RunSpec, folder: Path) -> None:
    """Raises `Failed` unless the teacher can answer for the data in `folder`."""
    about = find_teacher(run)
    if about is not None:
        meta = read_meta(folder)
        check_fit(about, meta.classes, meta.channels)


def check_fit(about: dict[str, Any], classes: list[str], channels: int) -> None:
    """Raises `Failed(unsupported)` where the teacher knows other classes, or sees other channels."""
    known = [str(name) for name in about.get("classes") or []]
    missing = [name for name in classes if name not in known]
    unknown = [name for name in known if name not in classes]
    if missing or unknown:
        words = [
            f"{what} {', '.join(names[:NAMED_CLASSES])}{' …' if len(names) > NAMED_CLASSES else ''}"
            for what, names in (("it does not know", missing), ("only it knows", unknown))
            if names
        ]
        raise Failed(
            Reason.UNSUPPORTED,
            f"{FIELD}: the teacher was trained on {len(known)} other classes: {'; '.join(words)}",
            HINT,
        )
    seen = (about.get("preprocessing") or {}).get("channels")
    if seen != channels:
        raise Failed(
            Reason.UNSUPPORTED,
            f"{FIELD}: the teacher takes images of {seen} channels and the dataset's have {channels}",
            HINT,
        )
