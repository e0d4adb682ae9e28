"""The ranks of one training, and the few things they tell each other."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

# Longer than any evaluation or checkpoint that the other ranks wait for, yet an end to a hang.
COLLECTIVE_TIMEOUT = timedelta(minutes=30)


@dataclass(frozen=True)
class Ranks:
    """This process among all; one rank alone needs no process group and every exchange is free."""

    rank: int
    world_size: int
    device: torch.device

    @property
    def first(self) -> bool:
        return self.rank == 0

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """The sum over all ranks, in place."""
        if self.world_size > 1:
            distributed.all_reduce(values)
        return values

    def from_first(self, numbers: list[int]) -> list[int]:
        """What rank 0 says, on every rank."""
        if self.world_size == 1:
            return numbers
        tensor = torch.tensor(numbers, dtype=torch.int64, device=self.device)
        distributed.broadcast(tensor, 0)
        return [int(number) for number in tensor.tolist()]

    def text_from_first(self, text: str) -> str:
        content = text.encode()
        [length] = self.from_first([len(content)])
        return bytes(self.from_first(list(content) if self.first else [0] * length)).decode()

    def same_buffers(self, model: nn.Module) -> None:
        """Give every rank the running statistics of rank 0."""
        if self.world_size > 1:
            for buffer in model.buffers():
                distributed.broadcast(buffer, 0)

    def wrap(self, model: nn.Module) -> nn.Module:
        """DDP where there are others. Every network here uses all its parameters in every step: a static graph."""
        if self.world_size == 1:
            return model
        devices = [self.device.index] if self.device.type == "cuda" else None
        return DistributedDataParallel(model, device_ids=devices, gradient_as_bucket_view=True, static_graph=True)


def join(device: str) -> Ranks:
    """Take part as torchrun's environment says, or be the only rank without it."""
    rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    place = torch.device("cuda", local_rank) if device == "cuda" else torch.device("cpu")
    if place.type == "cuda":
        torch.cuda.set_device(place)
    if world_size > 1:
        distributed.init_process_group(
            "nccl" if place.type == "cuda" else "gloo",
            timeout=COLLECTIVE_TIMEOUT,
            device_id=place if place.type == "cuda" else None,
        )
    return Ranks(rank, world_size, place)


def leave() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()


def is_lost_peer(error: BaseException) -> bool:
    """Whether an error only says that another rank is gone: that one knows the cause."""
    if isinstance(error, distributed.DistError):
        return True
    words = str(error).lower()
    return isinstance(error, RuntimeError) and any(
        word in words for word in ("connection closed by peer", "connection reset", "gloo/transport", "nccl")
    )


def use_threads(wanted: int, world_size: int) -> int:
    """Set and return the CPU threads of this rank: `wanted`, or its share of the cores allowed."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = wanted or max(1, cores // world_size)
    torch.set_num_threads(threads)
    return threads
