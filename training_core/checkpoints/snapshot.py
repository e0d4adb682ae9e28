"""A training at one moment, copied to host memory that is used again and again, while the training goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from training_core.distributed.tensors import Tensors


@dataclass(frozen=True)
class Snapshot:
    """What the files of a checkpoint will hold: tensors by kind (`model`, `raw`, `optimizer`), and finished texts.

    `sharded` as in the manifest. The tensors may be read after `wait`, until the next snapshot is taken.
    """

    step: int
    tensors: dict[str, Tensors]
    texts: dict[str, bytes]
    sharded: dict[str, dict[str, int]]
    wait: Callable[[], None]


class HostMemory:
    """One buffer for each tensor; page-locked for those of a GPU, which then copies while it computes."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._buffers: dict[str, Tensors] = {}
        cuda = device.type == "cuda"
        self._stream = torch.cuda.Stream(device) if cuda else None  # type: ignore[no-untyped-call]

    def copy(self, tensors: dict[str, Tensors]) -> tuple[dict[str, Tensors], Callable[[], None]]:
        """The copies, in the layout of the originals, and what to call before they are read.

        On a GPU this returns at once: what changes the originals is made to wait for the copy, on the device.
        """
        if self._stream is None:
            return self._copy(tensors), lambda: None
        now = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(now)
        with torch.cuda.stream(self._stream):
            copies = self._copy(tensors)
        now.wait_stream(self._stream)
        done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        done.record(self._stream)
        return copies, done.synchronize

    def _copy(self, tensors: dict[str, Tensors]) -> dict[str, Tensors]:
        copies = {
            kind: {name: self._buffer(kind, name, one).copy_(one, non_blocking=True) for name, one in some.items()}
            for kind, some in tensors.items()
        }
        self._buffers = copies
        return copies

    def _buffer(self, kind: str, name: str, tensor: torch.Tensor) -> torch.Tensor:
        old = self._buffers.get(kind, {}).get(name)
        if old is not None and old.shape == tensor.shape and old.dtype == tensor.dtype:
            return old
        return torch.empty_like(tensor, device="cpu", requires_grad=False, pin_memory=tensor.is_cuda)
