"""An exponential moving average of the weights (Polyak & Juditsky 1992): judged and kept instead of the raw ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from training_core.distributed.sharding import cut_like
from training_core.distributed.tensors import Tensors

# TensorFlow's ramp: in the first steps the average forgets faster, or it would hold on to the initial weights.
RAMP = 10


class Ema:
    """Averages every floating-point tensor that training changes in `network`; the rest is the network's own.

    The running statistics of batch norms are averaged too: they belong to the activations of one set of weights, and
    the average of both comes nearer to the averaged network than the newest statistics do. The average lies in tensors
    of the same layout on the same device. `updates` counts the steps in it.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self._network = network
        frozen = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
        self._own = {
            name: tensor
            for name, tensor in network.state_dict().items()
            if tensor.is_floating_point() and name not in frozen
        }
        self._average = {name: tensor.detach().clone() for name, tensor in self._own.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take the weights as they are after a step."""
        decay = min(self.decay, (1 + self.updates) / (RAMP + self.updates))
        torch._foreach_lerp_(list(self._average.values()), list(self._own.values()), 1 - decay)
        self.updates += 1

    def tensors(self) -> Tensors:
        """The complete state of the averaged network, not copied."""
        return {name: self._average.get(name, tensor) for name, tensor in self._network.state_dict().items()}

    @torch.no_grad()
    def load(self, tensors: Tensors, *, updates: int) -> None:
        """Continue from what `tensors` gave after `updates` steps, whole on every rank."""
        for name, average in self._average.items():
            average.copy_(cut_like(tensors[name], average))
        self.updates = updates

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the network has the averaged weights; afterwards its own again, bit for bit.

        Contents are exchanged in place: the tensors stay those that optimizer, DDP and FSDP hold.
        """
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for name, average in self._average.items():
            own = self._own[name]
            kept = own.clone()
            own.copy_(average)
            average.copy_(kept)
