"""Use a trained model:

    from training_core.predict import load
    model = load("path/to/export-or-checkpoint")
    model.predict(["cat.jpg"])

Images pass through the code that made the training's own evaluation pictures. An ONNX export needs no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from training_core.contract.errors import Failed, Reason
from training_core.contract.model_card import CARD_FILE, Card, Preprocessing, read_card
from training_core.vision.headers import Undecodable
from training_core.vision.serving_transform import picture, square

if TYPE_CHECKING:
    import torch

MANIFEST = "manifest.json"
TOGETHER = 32

Images = NDArray[np.uint8]
Logits = NDArray[np.float32]
# A file, its content, or pixels `(height, width, channels) uint8`.
Picturable = str | Path | bytes | Images


@dataclass(frozen=True)
class Prediction:
    """The most likely class, its probability, and the probabilities of all classes, which sum to 1."""

    label: str
    probability: float
    probabilities: dict[str, float]


class Model:
    """`compute` takes `(batch, height, width, channels) uint8` to `(batch, classes)` logits."""

    def __init__(self, classes: list[str], preprocessing: Preprocessing, compute: Callable[[Images], Logits]) -> None:
        self.classes, self.preprocessing = classes, preprocessing
        self._compute = compute

    def predict(self, images: Iterable[Picturable]) -> list[Prediction]:
        """One prediction an image, in their order.

        Raises `FileNotFoundError`, and `Failed(image_corrupt)` with the name of the file and what is wrong with it.
        """
        return [prediction for batch in self._batches(images) for prediction in self._judge(self.logits(batch))]

    def logits(self, pictures: Images) -> Logits:
        """`(batch, classes)` for pictures that have their size, `(batch, image_size, image_size, channels) uint8`."""
        return np.asarray(self._compute(pictures), np.float32)

    def picture(self, image: Picturable, title: str = "the image") -> Images:
        """`(image_size, image_size, channels) uint8`: what the network sees of it."""
        side, channels = self.preprocessing.image_size, self.preprocessing.channels
        if isinstance(image, np.ndarray):
            return square(_with_channels(image, channels), side)
        content = image if isinstance(image, bytes) else Path(image).read_bytes()
        title = title if isinstance(image, bytes) else Path(image).name
        try:
            return picture(content, side, channels)
        except Undecodable as problem:
            hint = "give a PNG, JPEG, WebP, BMP or GIF file of one picture"
            raise Failed(Reason.IMAGE_CORRUPT, f"{title} cannot be used: {problem}", hint) from problem

    def _batches(self, images: Iterable[Picturable]) -> Iterator[Images]:
        pictures = (self.picture(image, f"image {number}") for number, image in enumerate(images))
        while batch := list(islice(pictures, TOGETHER)):
            yield np.stack(batch)

    def _judge(self, logits: Logits) -> Iterator[Prediction]:
        powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
        for shares in powers / powers.sum(axis=1, keepdims=True):
            best = int(shares.argmax())
            named = dict(zip(self.classes, shares.tolist(), strict=True))
            yield Prediction(self.classes[best], float(shares[best]), named)


def load(path: str | Path) -> Model:
    """The model in the folder of an export (any form) or of a checkpoint.

    Raises `FileNotFoundError`, `Failed(checkpoint_invalid)` for content that is not what was written, and
    `Failed(unsupported)` where a package is missing.
    """
    folder = Path(path)
    folder = folder.parent if folder.is_file() else folder
    if (folder / CARD_FILE).exists():
        card = read_card((folder / CARD_FILE).read_bytes(), folder.name)
        content = card.verified((folder / card.file).read_bytes(), folder.name)
        return Model(card.classes, card.preprocessing, LOADERS[card.export](content, card))
    if not (folder / MANIFEST).exists():
        raise FileNotFoundError(f"{folder} holds neither {CARD_FILE} (an export) nor {MANIFEST} (a checkpoint)")
    return _load_checkpoint(folder)


def _load_checkpoint(folder: Path) -> Model:
    from training_core.export.write import read_folder  # noqa: PLC0415
    from training_core.vision.network_of_card import PixelGraph  # noqa: PLC0415  torch: an ONNX model does without

    trained = read_folder(folder)
    return Model(trained.classes, trained.preprocessing, _in_torch(PixelGraph(trained).eval()))


def _load_weights(content: bytes, card: Card) -> Callable[[Images], Logits]:
    from safetensors.torch import load as load_tensors  # noqa: PLC0415

    from training_core.vision.network_of_card import PixelGraph, rebuild  # noqa: PLC0415

    return _in_torch(PixelGraph(rebuild(load_tensors(content), card.model_dump(), card.file)).eval())


def _load_program(content: bytes, _: Card) -> Callable[[Images], Logits]:
    import torch  # noqa: PLC0415

    return _in_torch(torch.export.load(BytesIO(content)).module())


def _in_torch(graph: Callable[..., torch.Tensor]) -> Callable[[Images], Logits]:
    import torch  # noqa: PLC0415

    def compute(images: Images) -> Logits:
        with torch.no_grad():
            return graph(torch.from_numpy(images)).numpy()

    return compute


def _load_onnx(content: bytes, _: Card) -> Callable[[Images], Logits]:
    from training_core.export.onnx_model import open_session  # noqa: PLC0415

    return open_session(content).run


LOADERS: dict[str, Callable[[bytes, Card], Callable[[Images], Logits]]] = {
    "safetensors": _load_weights,
    "torch_export": _load_program,
    "onnx": _load_onnx,
    "onnx_int8": _load_onnx,
}


def _with_channels(pixels: Images, channels: int) -> Images:
    """Raises `Failed(image_corrupt)` for an array that is no picture."""
    if pixels.ndim == 3 and pixels.dtype == np.uint8 and pixels.size:
        if pixels.shape[2] == channels:
            return pixels
        if pixels.shape[2] == 1:
            return np.repeat(pixels, channels, axis=2)
    raise Failed(
        Reason.IMAGE_CORRUPT,
        f"an array of {pixels.dtype} {pixels.shape} is no picture for this model",
        f"give (height, width, {channels}) uint8, values of 0-255",
    )
