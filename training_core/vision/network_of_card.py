"""A trained network out of a checkpoint's tensors and description, and as a graph that takes pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from pydantic import ValidationError
from torch import nn

from training_core.contract.errors import Failed, Reason
from training_core.contract.model_card import Preprocessing
from training_core.distributed.tensors import Tensors
from training_core.vision.networks import make_model


@dataclass(frozen=True)
class Trained:
    """A model as its checkpoint says it is; `network` takes normalised images, in evaluation mode, on the CPU."""

    model: str
    classes: list[str]
    preprocessing: Preprocessing
    network: nn.Module
    about: dict[str, Any]


class PixelGraph(nn.Module):
    """From `(batch, height, width, channels) uint8` to `(batch, classes) float32` logits.

    It normalises as `training_core.vision.prefetch.Normalise` does, operation by operation, so that nothing differs.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, trained: Trained) -> None:
        super().__init__()
        self.network = trained.network
        shape = (1, trained.preprocessing.channels, 1, 1)
        self.register_buffer("mean", torch.tensor(trained.preprocessing.mean).view(shape))
        deviation = torch.tensor(trained.preprocessing.standard_deviation)
        self.register_buffer("scale", (1.0 / deviation).view(shape))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        pixels = images.permute(0, 3, 1, 2).to(torch.float32)
        logits: torch.Tensor = self.network(pixels.sub(self.mean).mul(self.scale))
        return logits


def rebuild(tensors: Tensors, about: dict[str, Any], title: str) -> Trained:
    """Raises `Failed(checkpoint_invalid)` where the description or the tensors do not make a model of ours."""
    try:
        preprocessing = Preprocessing.model_validate(about.get("preprocessing"))
        model, classes = str(about["model"]), [str(name) for name in about["classes"]]
        network = make_model(model, channels=preprocessing.channels, classes=len(classes))
        network.load_state_dict(tensors)
    except (ValidationError, KeyError, TypeError, ValueError, RuntimeError) as problem:
        words = str(problem).splitlines()[0]
        raise Failed(
            Reason.CHECKPOINT_INVALID,
            f"{title} does not hold a model that can be rebuilt: {words}",
            "name a checkpoint that Trainyard wrote",
        ) from problem
    return Trained(model, classes, preprocessing, network.eval(), about)
