"""The ranks of one training, and the few things they tell each other."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import distributed, nn

from training_core.contract.errors import Failed, Reason

# Longer than any evaluation or checkpoint that the other ranks wait for, yet an end to a hang.
COLLECTIVE_TIMEOUT = timedelta(minutes=30)
TIMEOUT_VARIABLE = "TRAINYARD_COLLECTIVE_SECONDS"
ANY_PORT = 9  # nothing is sent there


@dataclass(frozen=True)
class Ranks:
    """This process among all; one rank alone needs no process group and every exchange is free."""

    rank: int
    world_size: int
    device: torch.device
    local_rank: int = 0
    hosts: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    @property
    def first_of_host(self) -> bool:
        return self.local_rank == 0

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


def join(device: str, share: float = 1.0) -> Ranks:
    """Take part as torchrun's environment says, or be the only rank without it.

    Of a GPU that is shared, no more than `share` of its memory is taken.
    Raises `Failed(unsupported)` when the first host has a name that means nothing here.
    """
    rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    place = torch.device("cuda", local_rank) if device == "cuda" else torch.device("cpu")
    if place.type == "cuda":
        torch.cuda.set_device(place)
        if share < 1:
            torch.cuda.set_per_process_memory_fraction(share, place)
    if world_size > 1:
        _find_interface()
        distributed.init_process_group(
            # What ranks agree on lies in host memory: a GPU need not be waited for.
            "cpu:gloo,cuda:nccl" if place.type == "cuda" else "gloo",
            timeout=_timeout(),
            device_id=place if place.type == "cuda" else None,
        )
    hosts = world_size // int(os.environ.get("LOCAL_WORLD_SIZE", str(world_size)))
    return Ranks(rank, world_size, place, local_rank, max(1, hosts))


def _timeout() -> timedelta:
    seconds = os.environ.get(TIMEOUT_VARIABLE)
    return timedelta(seconds=float(seconds)) if seconds else COLLECTIVE_TIMEOUT


def _find_interface() -> None:
    """Tell gloo through which interface the other ranks are reached.

    Left alone it asks for the address of this host's own name, which need not have one.
    """
    if "GLOO_SOCKET_IFNAME" in os.environ:
        return
    address = _own_address(os.environ["MASTER_ADDR"])
    name = _interface_of(address)
    if name is not None:
        os.environ["GLOO_SOCKET_IFNAME"] = name


def _own_address(other: str) -> str:
    """The address of this host that packets to `other` leave from; none is sent."""
    try:
        family, _, _, _, target = socket.getaddrinfo(other, ANY_PORT, type=socket.SOCK_DGRAM)[0]
    except socket.gaierror as problem:
        raise Failed(
            Reason.UNSUPPORTED,
            f"the first host calls itself {other}, and this host knows no address for that name",
            "give torchrun --local-addr with an address that the other hosts reach",
        ) from problem
    with socket.socket(family, socket.SOCK_DGRAM) as line:
        line.connect(target)
        return str(line.getsockname()[0])


def _interface_of(address: str) -> str | None:
    import psutil  # type: ignore[import-untyped]  # noqa: PLC0415  only for ranks that others started

    for name, addresses in psutil.net_if_addrs().items():
        if any(one.address.partition("%")[0] == address for one in addresses):
            return str(name)
    return None


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


def is_silent_peer(error: BaseException) -> bool:
    """Whether an error says that another rank is there and has said nothing for too long."""
    words = str(error).lower()
    return isinstance(error, RuntimeError) and "timed out waiting" in words and "gloo" in words


def use_threads(wanted: int, world_size: int) -> int:
    """Set and return the CPU threads of this rank: `wanted`, or its share of the cores allowed."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = wanted or max(1, cores // world_size)
    torch.set_num_threads(threads)
    return threads
