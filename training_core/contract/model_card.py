"""What stands beside every exported model, in `model.json`: all that is needed to use it. Torch-free."""

from __future__ import annotations

import hashlib
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from training_core.contract.errors import Failed, Reason
from training_core.contract.spec import ExportFormat

CARD_FILE = "model.json"
FILES: dict[ExportFormat, str] = {
    "safetensors": "model.safetensors",
    "torch_export": "model.pt2",
    "onnx": "model.onnx",
    "onnx_int8": "model.onnx",
}


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


class Preprocessing(Part):
    """From any image to what the network takes: `resize` in words, then `(value - mean) / standard_deviation`.

    Both by channel, for pixel values of 0-255.
    """

    image_size: int = Field(ge=1, le=4096)
    channels: Literal[1, 3]
    resize: str = ""
    mean: list[float]
    standard_deviation: list[float]


class File(Part):
    size: int
    sha256: str


class Input(Part):
    """What the graph of an export takes. `uint8` pixels are normalised inside; the weights alone take `float32`."""

    name: str = "images"
    dtype: Literal["uint8", "float32"]
    layout: Literal["NHWC", "NCHW"]
    shape: list[int | str]


class Card(Part):
    """`check` says how the export was compared with the model it was made from, in numbers."""

    version: Literal[1] = 1
    export: ExportFormat
    file: str
    files: dict[str, File]
    task: str = "image-classification"
    model: str
    classes: list[str] = Field(min_length=1)
    preprocessing: Preprocessing
    input: Input
    output: str = "logits"
    metrics: dict[str, float] = Field(default_factory=dict)
    dataset_version: str = ""
    checkpoint: str = ""
    check: dict[str, Any] = Field(default_factory=dict)
    made_with: dict[str, str] = Field(default_factory=dict)
    written_at: float = 0.0

    def verified(self, content: bytes, title: str) -> bytes:
        """`content` of the model's file; raises `Failed(checkpoint_invalid)` when it is not what was written."""
        record = self.files.get(self.file)
        whole = record is not None and len(content) == record.size and digest(content) == record.sha256
        if not whole:
            raise Failed(
                Reason.CHECKPOINT_INVALID,
                f"{title}/{self.file} is not what {CARD_FILE} says (size or sha256)",
                "copy the export again, all of its files",
            )
        return content


def read_card(content: bytes, title: str) -> Card:
    """Raises `Failed(checkpoint_invalid)` for anything that is no card."""
    try:
        card = Card.model_validate_json(content)
    except ValidationError as problem:
        first = problem.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise Failed(
            Reason.CHECKPOINT_INVALID,
            f"{title}/{CARD_FILE} describes no exported model ({where}: {first['msg']})",
            "name the folder of an export or of a checkpoint",
        ) from problem
    if "/" in card.file or card.file.startswith("."):
        raise Failed(Reason.CHECKPOINT_INVALID, f"{title}/{CARD_FILE} names a file outside of its folder")
    return card


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
