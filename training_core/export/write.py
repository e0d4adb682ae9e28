"""From a checkpoint in the store to an export: the model's file, then its card, which makes it complete."""

from __future__ import annotations

import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from training_core.checkpoints import checkpoint
from training_core.checkpoints.manifest import Damaged
from training_core.contract.errors import Failed, Reason
from training_core.contract.model_card import CARD_FILE, Card, File, digest
from training_core.contract.spec import ExportFormat
from training_core.export.forms import Forms, Made, file_of
from training_core.export.pictures import Pictures
from training_core.storage.store import FolderStore, Store
from training_core.vision.network_of_card import Trained, rebuild


@dataclass(frozen=True)
class Export:
    """A form, complete: its files by name, the card last."""

    card: Card
    files: dict[str, bytes]
    warning: str | None


class Exporter:
    """All forms of the model of one checkpoint."""

    def __init__(self, trained: Trained, path: str, pictures: Pictures, metrics: dict[str, float]) -> None:
        self._trained, self._path, self._metrics = trained, path, metrics
        self._forms = Forms(trained, pictures, self._metadata())

    def _metadata(self) -> dict[str, str]:
        """Inside the model's own file, for those who lose its card: the labels and the preprocessing, as JSON."""
        return {"trainyard": self._card("safetensors").model_dump_json(include={"model", "classes", "preprocessing"})}

    def export(self, form: ExportFormat) -> Export:
        """Raises `Failed`, and whatever the exporters of a form raise."""
        made = self._forms.make(form)
        card = self._card(form, made)
        return Export(card, {card.file: made.content, CARD_FILE: card.model_dump_json(indent=1).encode()}, made.warning)

    def _card(self, form: ExportFormat, made: Made | None = None) -> Card:
        trained, file = self._trained, file_of(form)
        inside: dict[str, Any] = {"files": {}, "input": {"dtype": "float32", "layout": "NCHW", "shape": []}}
        if made is not None:
            record = File(size=len(made.content), sha256=digest(made.content))
            inside = {"files": {file: record}, "input": made.input, "check": made.check}
        return Card(
            export=form,
            file=file,
            task=str(trained.about.get("task", "image-classification")),
            model=trained.model,
            classes=trained.classes,
            preprocessing=trained.preprocessing,
            metrics=self._metrics,
            dataset_version=str(trained.about.get("dataset_version", "")),
            checkpoint=self._path,
            made_with=_versions(form),
            written_at=time.time(),
            **inside,
        )


def read_trained(store: Store, path: str) -> Trained:
    """The model of a checkpoint; raises `Failed(checkpoint_invalid)`."""
    try:
        tensors, about = checkpoint.read_model(store, path)
    except FileNotFoundError as problem:
        raise Failed(
            Reason.CHECKPOINT_INVALID, f"there is no checkpoint {path}", "name a folder with a manifest.json"
        ) from problem
    except Damaged as problem:
        raise Failed(
            Reason.CHECKPOINT_INVALID, f"{path} cannot be used: {problem}", "name another checkpoint"
        ) from problem
    return rebuild(tensors, about, path)


def read_folder(folder: Path) -> Trained:
    """The model of the checkpoint in a folder of this machine."""
    return read_trained(FolderStore(folder.absolute().parent), folder.absolute().name)


def write(store: Store, folder: str, export: Export) -> None:
    """An earlier export in `folder` goes first, its card before all else: nothing half looks whole."""
    store.delete(folder, CARD_FILE)
    for name, content in export.files.items():
        store.write(f"{folder}/{name}", content)


def _versions(form: ExportFormat) -> dict[str, str]:
    names = ["onnx", "onnxscript", "onnxruntime"] if form.startswith("onnx") else []
    return {"torch": str(torch.__version__)} | {name: version(name) for name in names}
