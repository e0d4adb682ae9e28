"""The networks: two small ones for small images, and torchvision's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from training_core.optimisation.layers import first_convolution

# torch's own default, and that of most networks: a memory of ten batches.
MOMENTUM, LONG_TRAINING_STEPS = 0.1, 10_000


def make_model(name: str, *, channels: int, classes: int) -> nn.Module:
    """A freshly initialised network from `(batch, channels, height, width)` to `(batch, classes)` logits."""
    if name in SMALL:
        return SMALL[name](channels, classes)
    # Importing torchvision costs more than a second: only for those who use it.
    from torchvision import models  # noqa: PLC0415

    model: nn.Module = models.get_model(name, weights=None, num_classes=classes)
    return model if channels == 3 else _with_input_channels(model, channels)


class Residual(nn.Module):
    """What `body` adds to its input (He et al. 2016)."""

    def __init__(self, *body: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*body)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        added: torch.Tensor = self.body(images)
        return images + added


def small_resnet(channels: int, classes: int) -> nn.Module:
    """Six convolutions with batch norm, most of them where the picture is a quarter or an eighth of its side.

    On a CPU the full resolution costs most, in memory traffic more than in arithmetic, and needs few filters. Batch
    norm learns in two thirds of the epochs that group norm takes, at the same cost.
    """
    return nn.Sequential(
        *_block(channels, 16, _batch_norm, pool=True),
        *_block(16, 48, _batch_norm, pool=True),
        Residual(*_block(48, 48, _batch_norm, pool=False)),
        *_block(48, 96, _batch_norm, pool=True),
        Residual(*_block(96, 96, _batch_norm, pool=False), *_block(96, 96, _batch_norm, pool=False)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(96, classes),
    )


def small_cnn(channels: int, classes: int, width: int = 16) -> nn.Module:
    """Four convolutions with GroupNorm, so that a result does not depend on how a batch is shared among ranks.

    Pooling before the norm and the activation gives the same order of maxima at a quarter of their cost.
    """
    return nn.Sequential(
        *_block(channels, width, _group_norm, pool=True),
        *_block(width, 2 * width, _group_norm, pool=True),
        *_block(2 * width, 4 * width, _group_norm, pool=True),
        *_block(4 * width, 4 * width, _group_norm, pool=False),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4 * width, classes),
    )


SMALL: dict[str, Callable[[int, int], nn.Module]] = {"small_cnn": small_cnn, "small_resnet": small_resnet}


def _group_norm(channels: int) -> nn.Module:
    return nn.GroupNorm(8, channels)


def _batch_norm(channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels)


def _block(inputs: int, outputs: int, norm: Callable[[int], nn.Module], *, pool: bool) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    pooling: list[nn.Module] = [nn.MaxPool2d(2, ceil_mode=True)] if pool else []
    return [convolution, *pooling, norm(outputs), nn.ReLU(inplace=True)]


def _with_input_channels(model: nn.Module, channels: int) -> nn.Module:
    """Replaces the first convolution of a torchvision model, whose three inputs are fixed."""
    name, first = first_convolution(model)
    options: dict[str, Any] = {"stride": first.stride, "padding": first.padding, "bias": first.bias is not None}
    replacement = nn.Conv2d(channels, first.out_channels, first.kernel_size, **options)  # type: ignore[arg-type]
    nn.init.kaiming_normal_(replacement.weight, mode="fan_out", nonlinearity="relu")
    parent, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(parent), attribute, replacement)
    return model


def norms_of(model: nn.Module) -> list[_BatchNorm]:
    """Those batch norms that keep running statistics."""
    return [one for one in model.modules() if isinstance(one, _BatchNorm) and one.track_running_stats]


def remember_less(model: nn.Module, total_steps: int) -> None:
    """Batch norms that average over a hundred batches (torchvision's MobileNets) average over ten, if steps are few."""
    for norm in norms_of(model):
        if norm.momentum is not None and norm.momentum < MOMENTUM and total_steps < LONG_TRAINING_STEPS:
            norm.momentum = MOMENTUM
