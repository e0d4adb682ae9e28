"""Batches from the prepared arrays to the device: gathered one ahead in a thread, moved as uint8, normalised there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from training_core.data import augment
from training_core.data.sample import Indices

STATISTICS_IMAGES = 2000
READ_AHEAD = 2


@dataclass(frozen=True)
class Batch:
    """`images` is `(batch, channels, height, width) uint8` in channels-last memory, `labels` `(batch,) int64`."""

    images: torch.Tensor
    labels: torch.Tensor
    epoch: int = 0


class Arrays:
    """The prepared arrays, memory-mapped: the page cache is shared by all processes of the host."""

    def __init__(self, folder: Path) -> None:
        self.images: NDArray[np.uint8] = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
        self.labels: NDArray[np.int64] = np.load(folder / "labels.npy", allow_pickle=False)

    def batch(self, indices: Indices, *, augmentation: str = "none", seed: int = 0, epoch: int = 0) -> Batch:
        images = self.images[indices]
        if augmentation == "light":
            images = augment.light(images, indices, seed, epoch)
        return Batch(torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(self.labels[indices]), epoch)

    def channel_statistics(self, indices: Indices) -> tuple[list[float], list[float]]:
        """Mean and standard deviation by channel in units of 0-255, from images spread over `indices`."""
        chosen = indices[np.linspace(0, len(indices) - 1, min(len(indices), STATISTICS_IMAGES)).astype(np.int64)]
        pixels = self.images[chosen].reshape(-1, self.images.shape[-1])
        mean = pixels.mean(axis=0, dtype=np.float64)
        deviation = np.maximum(pixels.std(axis=0, dtype=np.float64), 1.0)
        return [float(value) for value in mean], [float(value) for value in deviation]


def read_ahead(
    arrays: Arrays, parts: Iterable[tuple[int, Indices]], *, augmentation: str, seed: int, pin: bool
) -> Iterator[Batch]:
    """A batch for each `(epoch, indices)`; the next ones are gathered while the caller computes."""
    waiting: list[Future[Batch]] = []

    def make(epoch: int, indices: Indices) -> Batch:
        batch = arrays.batch(indices, augmentation=augmentation, seed=seed, epoch=epoch)
        return Batch(batch.images.pin_memory(), batch.labels.pin_memory(), epoch) if pin else batch

    with ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:
        try:
            for epoch, indices in parts:
                waiting.append(pool.submit(make, epoch, indices))
                if len(waiting) > READ_AHEAD:
                    yield waiting.pop(0).result()
            while waiting:
                yield waiting.pop(0).result()
        finally:
            for one in waiting:
                one.cancel()


class Normalise:
    """Moves batches to the device and scales them there into one reused channels-last buffer."""

    def __init__(self, mean: list[float], deviation: list[float], device: torch.device) -> None:
        self._mean = torch.tensor(mean, device=device).view(1, -1, 1, 1)
        self._scale = 1.0 / torch.tensor(deviation, device=device).view(1, -1, 1, 1)
        self._buffers: dict[torch.Size, torch.Tensor] = {}
        self._device = device

    def __call__(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Images `(batch, channels, height, width) float32`, valid until the next call, and labels."""
        images = batch.images.to(self._device, non_blocking=True)
        buffer = self._buffers.get(images.shape)
        if buffer is None:
            buffer = torch.empty(images.shape, device=self._device).to(memory_format=torch.channels_last)
            self._buffers[images.shape] = buffer
        buffer.copy_(images)
        buffer.sub_(self._mean).mul_(self._scale)
        return buffer, batch.labels.to(self._device, non_blocking=True)
