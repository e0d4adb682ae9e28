"""Steps of a training on synthetic images, one kind at a time."""

from __future__ import annotations

import time

import torch
from torch import nn
from torch.nn import functional

from training_core.contract.compute_plan import ComputePlan
from training_core.contract.errors import is_out_of_memory
from training_core.distributed.gradient_sync import distribute
from training_core.distributed.ranks import Ranks
from training_core.engine.precision import autocast
from training_core.optimisation.optimizers import make_optimizer
from training_core.planner.plan import Plan
from training_core.planner.table import Timing
from training_core.vision.networks import make_model

FORMATS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}


class ProbeStep:
    """A network of its own in one precision and layout, and batches of noise of any size.

    Of several `ranks` each has one; their steps average gradients as those of a training do.
    """

    def __init__(self, plan: Plan, kind: Timing, device: torch.device, ranks: Ranks | None = None) -> None:
        self._plan, self._device, self._precision = plan, device, kind.precision
        self._format = FORMATS[kind.memory_format]
        made = make_model(plan.model, channels=plan.channels, classes=plan.classes)
        model: nn.Module = made.to(device, memory_format=self._format)  # type: ignore[call-overload]
        compute = ComputePlan(memory_format=kind.memory_format, precision=kind.precision)
        self._exchange = distribute(model, compute, ranks or Ranks(0, 1, device))
        self._optimizer = make_optimizer(model, plan)
        self._batches: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def take(self, images: int, threads: int, *, pieces: int = 1) -> float:
        """Seconds of `pieces` forward and backward passes on `images` each, and one optimizer step.

        Raises torch's error when memory ends.
        """
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        pixels, labels = self._batch(images)
        self._finish()
        start = time.perf_counter()
        self._optimizer.zero_grad(set_to_none=True)
        for number in range(pieces):
            with self._exchange.piece(last=number + 1 == pieces):
                with autocast(self._precision, self._device):
                    logits = self._exchange.parallel(pixels)
                functional.cross_entropy(logits.float(), labels).backward()  # type: ignore[no-untyped-call]
        self._exchange.settle(out_of_memory=False)
        self._optimizer.step()
        self._finish()
        return time.perf_counter() - start

    def _batch(self, images: int) -> tuple[torch.Tensor, torch.Tensor]:
        if images not in self._batches:
            side, channels = self._plan.image_size, self._plan.channels
            pixels = torch.randn(images, channels, side, side, device=self._device)
            labels = torch.arange(images, device=self._device) % self._plan.classes
            self._batches[images] = pixels.contiguous(memory_format=self._format), labels
        return self._batches[images]

    def _finish(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def is_memory_error(error: BaseException) -> bool:
    return is_out_of_memory(error) or isinstance(error, MemoryError)
