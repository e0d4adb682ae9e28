"""A frozen trunk sees each image once: what comes out is kept beside the prepared form, and the head trains on it.

<cache_dir>/<dataset_version>/features/<key>.npy  (images, width) float32, by row of the pack

The key covers the trunk's weights, the normalisation and the image size, so trials and later jobs share a file exactly
when it would be the same for both.
"""

from __future__ import annotations

import hashlib
import math
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from training_core.contract.errors import Failed, Reason, StopRequested
from training_core.data.cache import making
from training_core.data.sampler import COPY, Indices, Part, Sampler, share
from training_core.distributed.ranks import Ranks
from training_core.optimisation.layers import head
from training_core.vision.data_loaders import Statistics, make_crew
from training_core.vision.dataset_view import Chosen
from training_core.vision.prefetch import Batch, Loader, Normalise
from training_core.vision.transforms import Recipe
from training_core.vision.worker_pool import Crew

FOLDER = "features"
BATCH, EVALUATION_BATCH = 64, 4096

Values = NDArray[np.float32]


class Trunk:
    """All of a network but its last layer, frozen: no gradient reaches it and its batch norms learn nothing."""

    def __init__(self, network: nn.Module) -> None:
        last, self.head = head(network)
        self._network = network.eval()
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(name.startswith(f"{last}."))

    @property
    def width(self) -> int:
        return self.head.in_features

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """`(batch, width)`: what the last layer is given for `images`."""
        seen: list[torch.Tensor] = []
        hook = self.head.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        try:
            with torch.no_grad():
                self._network(images)
        finally:
            hook.remove()
        return seen[0]

    def sha256(self) -> str:
        """Of its tensors by name, the head's left out."""
        digest, last = hashlib.sha256(), head(self._network)[0]
        for name, tensor in sorted(self._network.state_dict().items()):
            if not name.startswith(f"{last}."):
                digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
                digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


def features_of(
    trunk: Trunk, data: Chosen, statistics: Statistics, ranks: Ranks, stop_requested: Callable[[], bool]
) -> Values:
    """`(images, width) float32`, memory-mapped: found, or made now by all ranks together, each image once.

    Raises `Failed(no_space)`, and `StopRequested` on every rank when rank 0 is asked to stop.
    """
    folder = data.pack.folder
    settings = f"{trunk.sha256()} {data.meta.image_size} {statistics.mean} {statistics.deviation}"
    path = folder / FOLDER / f"{hashlib.sha256(settings.encode()).hexdigest()[:32]}.npy"
    with ExitStack() as held:
        # Rank 0 holds the lock for all: of several trials that need the file, one makes it.
        if ranks.first and not path.exists():
            held.enter_context(making(folder.parent, f"{folder.name}.{path.stem}", stop_requested))
        if ranks.from_first([int(path.exists())]) == [0]:
            _make(path, trunk, data, statistics, ranks=ranks, stop_requested=stop_requested)
    values: Values = np.load(path, mmap_mode="r", allow_pickle=False)
    return values


def _make(
    path: Path,
    trunk: Trunk,
    data: Chosen,
    statistics: Statistics,
    *,
    ranks: Ranks,
    stop_requested: Callable[[], bool],
) -> None:
    """Into a file of its own, which gets its name when every rank has written its rows and they are on the disk."""
    temporary = path.with_suffix(".tmp")
    shape = (len(data.pack), trunk.width)
    if ranks.first:
        path.parent.mkdir(exist_ok=True)
        _check_space(path.parent, shape[0] * shape[1] * 4)
        np.lib.format.open_memmap(temporary, "w+", np.float32, shape)
    ranks.from_first([0])  # it is there
    values = np.lib.format.open_memmap(temporary, "r+")
    crew = make_crew(data.pack, [Recipe(data.pack.folder)], ranks)
    try:
        for rows, images in _pictures(data, statistics, crew, ranks):
            if ranks.from_first([int(stop_requested())]) == [1]:
                raise StopRequested
            if images is not None:
                values[rows] = trunk(images).float().cpu().numpy()
    finally:
        crew.close()
    values.flush()
    ranks.sum(torch.zeros(1, device=ranks.device))  # every rank has written
    if ranks.first:
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    ranks.from_first([0])  # it has its name


def _pictures(
    data: Chosen, statistics: Statistics, crew: Crew, ranks: Ranks
) -> Iterator[tuple[Indices, torch.Tensor | None]]:
    """Rows and normalised images of this rank's share of the pack, as the evaluation sees them.

    Every rank has as many batches as rank 0, so that they can agree between them; the last may be empty.
    """
    mine = share(np.arange(len(data.pack)), ranks.rank, ranks.world_size)
    steps = math.ceil(len(data.pack) / (BATCH * ranks.world_size))
    shape = (data.meta.image_size, data.meta.image_size)
    parts = [Part(0, mine[step * BATCH : (step + 1) * BATCH], shape) for step in range(steps)]
    loader = Loader(crew, (part for part in parts if len(part.draws)), data.labels, data.pack.channels)
    normalise = Normalise(statistics.mean, statistics.deviation, ranks.device)
    for part in parts:
        yield part.draws, normalise(next(loader))[0] if len(part.draws) else None


def _check_space(folder: Path, needed_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed_bytes * 1.05 + 2**20:
        raise Failed(
            Reason.NO_SPACE,
            f"the features of all images need {needed_bytes / 2**20:,.0f} MiB and {free / 2**20:,.0f} MiB are free",
            "free some space on the worker's cache disk, or set model.trainable to all",
        )


class FeatureFeed:
    """Batches of features in the place of pictures: as `Feed`, with `images` `(batch, width) float32`."""

    def __init__(self, data: Chosen, features: Values, sampler: Sampler, batch_size: int, ranks: Ranks) -> None:
        self._data, self._features, self._sampler, self._batch_size = data, features, sampler, batch_size
        self._rank, self._world_size = ranks.rank, ranks.world_size

    def images(self, split: str) -> int:
        """Of all ranks."""
        return len(self._data.splits[split])

    def training(self, step: int) -> Iterator[Batch]:
        """Batches from `step` on, without an end."""
        for part in self._sampler.batches(self._batch_size, (1, 1), step):
            yield self._batch(share(part.draws, self._rank, self._world_size) % COPY, part.epoch)

    def evaluation(self, split: str, some: Indices | None = None) -> Iterator[Batch]:
        """Each image of this rank's share of a split, or of `some` rows of it, once."""
        rows = share(self._data.splits[split] if some is None else some, self._rank, self._world_size)
        for start in range(0, len(rows), EVALUATION_BATCH):
            yield self._batch(rows[start : start + EVALUATION_BATCH], 0)

    def _batch(self, rows: Indices, epoch: int) -> Batch:
        return Batch(torch.from_numpy(self._features[rows]), torch.from_numpy(self._data.labels[rows]), epoch)

    def close(self) -> None:
        """Nothing runs here."""


class ToDevice:
    """Stands where `Normalise` does for pictures: features are normal enough."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def __call__(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        return batch.images.to(self._device), batch.labels.to(self._device)
