"""The blocks of a network: what FSDP2 cuts up one by one, and what activation checkpointing computes twice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint


def blocks(model: nn.Module) -> list[nn.Module]:
    """The outermost modules with layers of their own, seen through the sequences that hold them.

    Residual blocks of ResNets, inverted residuals of MobileNets and EfficientNets, dense blocks; none of a plain
    sequence of layers.
    """
    return [block for child in model.children() for block in _blocks(child)]


def _blocks(module: nn.Module) -> list[nn.Module]:
    children = list(module.children())
    if not children:
        return []
    if isinstance(module, nn.Sequential | nn.ModuleList) and any(list(child.children()) for child in children):
        return [block for child in children for block in _blocks(child)]
    return [module]


def save_activations_at_blocks(model: nn.Module) -> None:
    """Keep only what goes into each block, and compute the block again in the backward pass (Chen et al. 2016)."""
    for block in blocks(model):
        block.forward = partial(checkpoint, block.forward, use_reentrant=False, context_fn=partial(_contexts, block))


def _contexts(block: nn.Module) -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    return nullcontext(), _statistics_kept(block)


@contextmanager
def _statistics_kept(block: nn.Module) -> Iterator[None]:
    """The second computation sees the same images: batch norms must not count them twice."""
    norms = [one for one in block.modules() if isinstance(one, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
