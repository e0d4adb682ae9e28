"""Datasets opened as a run opens them, without preparing them."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pytest

from training_core.contract.errors import Failed
from training_core.contract.run_dir import RunSpec
from training_core.contract.spec import JobSpec
from training_core.data.formats import open_dataset
from training_core.data.samples import Content, Reader, Samples


def make_run(folder: Path, uri: str, dataset: dict[str, Any] | None = None, **changes: Any) -> RunSpec:
    """A run that may read below `folder`."""
    spec = JobSpec.model_validate({"task": "image-classification", "dataset": {"uri": uri, **(dataset or {})}})
    defaults = {
        "store": f"file://{folder}/store",
        "cache_dir": folder / "cache",
        "data_roots": [folder],
        "allowed_networks": ["127.0.0.1"],
    }
    return RunSpec(spec=spec, **{**defaults, **changes})


def open_run(run: RunSpec) -> tuple[Samples, Reader]:
    listing = run.cache_dir / f"listing-{uuid.uuid4().hex}"
    listing.mkdir(parents=True)
    return open_dataset(run, listing)


def open_uri(folder: Path, uri: str, dataset: dict[str, Any] | None = None, **changes: Any) -> tuple[Samples, Reader]:
    return open_run(make_run(folder, uri, dataset, **changes))


def refused(folder: Path, uri: str, reason: str, *words: str, **changes: Any) -> Failed:
    """The failure of opening `uri`, whose message and hint hold all `words`."""
    with pytest.raises(Failed) as failure:
        open_uri(folder, uri, **changes)
    check(failure.value, reason, *words)
    return failure.value


def check(failure: Failed, reason: str, *words: str) -> None:
    said = f"{failure.message} | {failure.hint}"
    assert failure.reason == reason, said
    for word in words:
        assert word in said


def rows(samples: Samples) -> list[dict[str, Any]]:
    return list(samples.table().to_pylist())


def labels(samples: Samples) -> dict[str, str]:
    """Class by path."""
    return {row["path"]: samples.classes[row["label"]] for row in rows(samples)}


def splits(samples: Samples) -> dict[str, int]:
    return {row["path"]: row["split"] for row in rows(samples)}


def contents(samples: Samples, reader: Reader, wanted: list[int] | None = None) -> dict[str, Content]:
    """Content by path, asked for in the order of `wanted`."""
    paths = samples.table().column("path").to_pylist()
    asked = list(range(len(paths))) if wanted is None else wanted
    answers = list(reader.read(asked))
    assert [row for row, _ in answers] == asked
    return {paths[row]: content for row, content in answers}


def touch(folder: Path, *paths: str) -> Path:
    """Files whose content is their own path."""
    for path in paths:
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(path.encode())
    return folder
