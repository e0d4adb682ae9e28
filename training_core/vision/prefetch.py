"""Batches for the device: filled ahead of time into reused memory, moved as uint8, normalised there."""

from __future__ import annotations

import itertools
import time
import weakref
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from training_core.data.sampler import COPY, Part
from training_core.vision.worker_pool import Crew, Images, Slot, images_in, size_of

READ_AHEAD = 2
# After so many batches the waiting of the caller is looked at: above the share, one thread more helps.
BATCHES_BETWEEN_LOOKS = 16
WAITING_SHARE = 0.05
CACHED_VALUES = 2**16


@dataclass(frozen=True)
class Batch:
    """`images` is `(batch, channels, height, width) uint8` in channels-last memory, `labels` `(batch,) int64`.

    The memory is used again when nothing refers to `images` or a part of it any more.
    """

    images: torch.Tensor
    labels: torch.Tensor
    epoch: int = 0


class Ring:
    """Slots that come back when their batch is gone: as many as are ahead, and as the caller keeps."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self._free: deque[Slot] = deque()
        self._lent: dict[int, tuple[Slot, weakref.ref[Images]]] = {}

    def __len__(self) -> int:
        return len(self._free) + len(self._lent)

    def take(self, size: int) -> Slot:
        """One of at least `size` bytes; smaller ones that are free make room for it."""
        while self._free:
            slot = self._free.popleft()
            if len(slot.memory) >= size:
                return slot
            self._crew.free(slot)
        return self._crew.slot(size)

    def shrink(self, most: int) -> None:
        """Give back free slots while there are more than `most`, the lent ones included."""
        while self._free and len(self) > most:
            self._crew.free(self._free.popleft())

    def lend(self, slot: Slot, images: Images) -> torch.Tensor:
        """A tensor over `images`, a view of the slot; the slot is free when the tensor and its views are gone."""

        def take_back(_: weakref.ref[Images], key: int = id(slot)) -> None:
            self._free.append(self._lent.pop(key)[0])

        # A tensor keeps the array it was made from for as long as any view of it lives.
        self._lent[id(slot)] = (slot, weakref.ref(images, take_back))
        return torch.from_numpy(images)


@dataclass
class Asked:
    """How often a batch was asked for, and how often it was not there yet."""

    batches: int = 0
    late: int = 0
    waited_seconds: float = 0.0
    threads_added: int = 0


class Loader:
    """Batches of `parts` in their order. Errors of the crew are raised where the batch would have come."""

    def __init__(
        self, crew: Crew, parts: Iterator[Part], labels: NDArray[np.int64], channels: int, *, recipe: int = 0
    ) -> None:
        self._crew, self._parts, self._labels = crew, parts, labels
        self._channels, self._recipe = channels, recipe
        self.ring = Ring(crew)
        self._waiting: deque[tuple[Part, Slot, Future[None]]] = deque()
        self.asked = Asked()
        self._waited, self._looked_at = 0.0, time.perf_counter()

    @property
    def crew(self) -> Crew:
        return self._crew

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        while len(self._waiting) <= READ_AHEAD and (part := next(self._parts, None)) is not None:
            slot = self.ring.take(size_of(part, self._channels))
            self._waiting.append((part, slot, self._crew.fill(slot, part, self._recipe)))
        if not self._waiting:
            raise StopIteration
        part, slot, filled = self._waiting.popleft()
        self.asked.late += not filled.done()
        start = time.perf_counter()
        filled.result()
        self._look(time.perf_counter() - start)
        images = self.ring.lend(slot, images_in(slot.memory, part, self._channels)).permute(0, 3, 1, 2)
        return Batch(images, torch.from_numpy(self._labels[part.draws % COPY]), part.epoch)

    def _look(self, waited: float) -> None:
        """More threads while the caller waits for batches. The first ones fill an empty ring and do not count."""
        self.asked.batches += 1
        if self.asked.batches > READ_AHEAD:
            self._waited += waited
            self.asked.waited_seconds += waited
        if self.asked.batches % BATCHES_BETWEEN_LOOKS == 0:
            now = time.perf_counter()
            if self._waited > WAITING_SHARE * (now - self._looked_at):
                self.asked.threads_added += self._crew.grow()
            self._waited, self._looked_at = 0.0, now

    def fetch(self, count: int) -> list[Batch]:
        """The next `count` batches, or the last ones, and those after them made ready as well: nothing is being made.

        They need memory for themselves, which `shrink` gives back when they are gone.
        """
        fetched = list(itertools.islice(self, count))
        for _, _, filled in self._waiting:
            filled.exception()  # an error is raised where its batch is asked for
        return fetched

    def shrink(self) -> None:
        """Free the memory of batches beyond those that are ahead and one that the caller has."""
        self.ring.shrink(READ_AHEAD + 2)


class Normalise:
    """Moves batches to the device and scales them there into one reused channels-last buffer."""

    def __init__(self, mean: list[float], deviation: list[float], device: torch.device) -> None:
        self._mean = torch.tensor(mean, device=device)
        self._scale = 1.0 / torch.tensor(deviation, device=device)
        self._buffers: dict[torch.Size, torch.Tensor] = {}
        self._device = device
        self._copying: deque[tuple[torch.Tensor, torch.cuda.Event]] = deque()

    def __call__(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Images `(batch, channels, height, width) float32`, valid until the next call, and labels."""
        images = batch.images.to(self._device, non_blocking=True)
        if self._device.type == "cuda":
            self._keep_while_copying(batch.images)
        buffer = self._buffers.get(images.shape)
        if buffer is None:
            buffer = torch.empty(images.shape, device=self._device).to(memory_format=torch.channels_last)
            self._buffers[images.shape] = buffer
        self._scale_rows(_rows(images), _rows(buffer))
        return buffer, batch.labels.to(self._device, non_blocking=True)

    def _scale_rows(self, source: torch.Tensor, target: torch.Tensor) -> None:
        """Rows of `width * channels` values, a few at a time on a CPU so that they stay in its cache.

        145 us an image of 224 x 224 x 3 become 40: most of them were three trips to memory and a broadcast of three
        values at a time.
        """
        repeats = target.shape[1] // len(self._mean)
        mean, scale = self._mean.repeat(repeats), self._scale.repeat(repeats)
        together = max(1, CACHED_VALUES // target.shape[1]) if self._device.type == "cpu" else len(target)
        for start in range(0, len(target), together):
            some = slice(start, start + together)
            target[some].copy_(source[some]).sub_(mean).mul_(scale)

    def _keep_while_copying(self, images: torch.Tensor) -> None:
        """The copy is asynchronous: until it is done, nobody may fill the memory again."""
        done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        done.record()
        self._copying.append((images, done))
        while self._copying and (len(self._copying) > READ_AHEAD or self._copying[0][1].query()):  # type: ignore[no-untyped-call]
            self._copying.popleft()[1].synchronize()


def _rows(images: torch.Tensor) -> torch.Tensor:
    """`(batch * height, width * channels)`, the same memory."""
    batch, channels, height, width = images.shape
    return images.permute(0, 2, 3, 1).view(batch * height, width * channels)
