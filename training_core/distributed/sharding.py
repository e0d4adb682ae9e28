"""Tensors that lie in pieces on several ranks (FSDP2), as files of pieces and back."""

from __future__ import annotations

from typing import Any

import torch

from training_core.distributed.tensors import Tensors


def is_sharded(tensor: torch.Tensor) -> bool:
    # By name: to import the class costs 0.4 s, for trainings that have none of it too.
    return type(tensor).__name__ == "DTensor"


def own_part(tensors: Tensors, *, first: bool) -> tuple[Tensors, dict[str, int]]:
    """What this rank writes, and by name the dimension along which the pieces of all ranks are joined.

    A tensor that every rank has is written by the first. Raises `ValueError` for any other layout than one shard a
    rank.
    """
    found = {name: _dimension(name, one) for name, one in tensors.items() if is_sharded(one)}
    dimensions = {name: dim for name, dim in found.items() if dim is not None}
    own: dict[str, Any] = {name: one for name, one in tensors.items() if first or name in dimensions}
    return {name: one.to_local() if name in found else one for name, one in own.items()}, dimensions


def _dimension(name: str, tensor: Any) -> int | None:
    """None for a tensor that is whole on every rank."""
    placements = tensor.placements
    if all(one.is_replicate() for one in placements):
        return None
    if len(placements) != 1 or not placements[0].is_shard():
        raise ValueError(f"{name} is laid out as {placements}, not as one shard a rank")
    return int(placements[0].dim)


def join(parts: list[Tensors], dimensions: dict[str, int]) -> Tensors:
    """The whole tensors, from the files of all ranks in their order. Raises `KeyError` for a piece that is missing."""
    whole = {name: one for part in parts for name, one in part.items() if name not in dimensions}
    return whole | {name: torch.cat([part[name] for part in parts], dim) for name, dim in dimensions.items()}


def cut_like(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A copy of `tensor`, which every rank has, in the memory layout of `like` and cut among ranks as that is."""
    if not is_sharded(like):
        return torch.empty_like(like, dtype=tensor.dtype).copy_(tensor)
    from torch.distributed.tensor import distribute_tensor  # noqa: PLC0415

    laid_out: Any = like
    return distribute_tensor(tensor.to(laid_out.device), laid_out.device_mesh, laid_out.placements, src_data_rank=None)
