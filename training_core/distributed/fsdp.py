"""FSDP2: parameters, gradients and optimizer state cut up among the ranks, block by block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from training_core.distributed.blocks import blocks
from training_core.distributed.ranks import Ranks
from training_core.distributed.tensors import Tensors


def shard(model: nn.Module, ranks: Ranks) -> None:
    """Cut up the parameters of `model` along their first dimension, in place; the optimizer comes afterwards.

    They become contiguous: FSDP2 takes no other layout (torch 2.14). Autocast computes in half precision where it
    should; the exchange stays in fp32, as the norms do.
    """
    model.to(memory_format=torch.contiguous_format)
    mesh = init_device_mesh(ranks.device.type, (ranks.world_size,))
    policy = MixedPrecisionPolicy(reduce_dtype=torch.float32)
    for block in blocks(model):
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)


@contextmanager
def whole(model: nn.Module) -> Iterator[None]:
    """Inside, every rank has all parameters, and a forward pass needs no other rank."""
    parts = [one for one in model.modules() if isinstance(one, FSDPModule)]
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        yield
    finally:
        for part in parts:
            part.set_reshard_after_forward(True, recurse=False)
            part.reshard()


def full_state(model: nn.Module) -> Tensors:
    """The complete state of a model that may be cut up, not copied where it is not. Called on all ranks."""
    return {name: full(tensor) for name, tensor in model.state_dict().items()}


def full(tensor: torch.Tensor) -> torch.Tensor:
    """The whole tensor. Called on all ranks."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local_shards(model: nn.Module) -> Tensors:
    """What this rank has of the state, not copied."""
    return {
        name: tensor.to_local() if isinstance(tensor, DTensor) else tensor
        for name, tensor in model.state_dict().items()
    }
