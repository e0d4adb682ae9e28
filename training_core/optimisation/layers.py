"""Layers of a network that a recipe treats on their own: the first, the last, the norms."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def first_convolution(model: nn.Module) -> tuple[str, nn.Conv2d]:
    """The layer that sees the pixels, with its name."""
    return next((name, one) for name, one in model.named_modules() if isinstance(one, nn.Conv2d))


def head(model: nn.Module) -> tuple[str, nn.Linear]:
    """The last layer, which makes the logits, with its name. All before it is the trunk."""
    return [(name, one) for name, one in model.named_modules() if isinstance(one, nn.Linear)][-1]


def has_batch_norm(model: nn.Module) -> bool:
    return any(isinstance(one, _BatchNorm) for one in model.modules())
