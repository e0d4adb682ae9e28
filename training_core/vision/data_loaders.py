"""The batches of a training: one crew for its epochs and its evaluations, and who makes them on this host."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from training_core.contract.run_dir import LoaderKind, RunSpec
from training_core.data.buckets import Shape, Shapes
from training_core.data.sampler import Indices, Part, Sampler, evaluation_parts, read_columns, share
from training_core.distributed.ranks import Ranks
from training_core.planner.plan import Plan
from training_core.vision.augment.presets import SMALL_SIDE
from training_core.vision.dataset_view import Chosen
from training_core.vision.pack import Pack
from training_core.vision.prefetch import Batch, Loader
from training_core.vision.process_pool import ProcessCrew
from training_core.vision.resizing import side_of
from training_core.vision.transforms import Recipe, Renderer, channel_statistics
from training_core.vision.worker_pool import Crew, ThreadCrew

# Enough for the third digit of the mean; decoding more would delay the first step.
STATISTICS_IMAGES, STATISTICS_DECODED_IMAGES = 2000, 256
# More of the cores would starve what feeds the GPU (SPDL's rule).
SHARE_OF_CORES = 0.4
TRAIN, EVALUATE = 0, 1


@dataclass(frozen=True)
class Statistics:
    """By channel, in units of 0-255."""

    mean: list[float]
    deviation: list[float]


class Feed:
    """Rank `rank` of `world_size` takes its share of every batch. `side_of` an epoch is there where images grow."""

    def __init__(
        self,
        data: Chosen,
        sampler: Sampler,
        crew: Crew,
        *,
        batch_size: int,
        shape: Shape,
        side_of: Callable[[int], int] | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self._data, self._sampler, self._crew = data, sampler, crew
        self._batch_size, self._shape = batch_size, shape
        self._side_of = side_of
        self._rank, self._world_size = rank, world_size

    def images(self, split: str) -> int:
        """Of all ranks."""
        return len(self._data.splits[split])

    def training(self, step: int) -> Iterator[Batch]:
        """Batches from `step` on, without an end."""
        parts = (
            part._replace(draws=share(part.draws, self._rank, self._world_size), shape=self._shape_of(part))
            for part in self._sampler.batches(self._batch_size, self._shape, step)
        )
        return self._load(parts, TRAIN)

    def _shape_of(self, part: Part) -> Shape:
        if self._side_of is None:
            return part.shape
        side = self._side_of(part.epoch)
        return side, side

    def evaluation(self, split: str, some: Indices | None = None) -> Iterator[Batch]:
        """Each image of this rank's share of a split, or of `some` rows of it, once.

        The square in its middle, which serving cuts too.
        """
        rows = share(self._data.splits[split] if some is None else some, self._rank, self._world_size)
        size = 256 if max(self._shape) <= SMALL_SIDE else 64
        return self._load(evaluation_parts(rows, size, self._shape), EVALUATE)

    def _load(self, parts: Iterator[Part], recipe: int) -> Loader:
        return Loader(self._crew, parts, self._data.labels, self._data.pack.channels, recipe=recipe)

    def close(self) -> None:
        self._crew.close()


def measure(pack: Pack, rows: Indices, side: int) -> Statistics:
    """From pictures as the evaluation sees them, in this thread."""
    renderer = Renderer(pack, Recipe(pack.folder))
    images = STATISTICS_IMAGES if renderer.together((side, side)) else STATISTICS_DECODED_IMAGES
    mean, deviation = channel_statistics(renderer, rows, side, pack.channels, images).tolist()
    return Statistics(mean, deviation)


def open_feed(data: Chosen, plan: Plan, run: RunSpec, ranks: Ranks) -> Feed:
    """Raises `Failed` when the dataset lacks what the sampling needs."""
    sampling, rows, side = run.spec.training.sampling, data.splits["train"], plan.image_size
    shapes = Shapes(data.pack.heights, data.pack.widths, side) if sampling.buckets == "shape" else None
    columns = read_columns(data.items, rows, sampling, shapes)
    recipes = [Recipe(data.pack.folder, plan.augmentation, plan.seed), Recipe(data.pack.folder)]
    return Feed(
        data,
        Sampler(rows, sampling, columns, seed=plan.seed, epochs=plan.epochs),
        make_crew(data.pack, recipes, ranks, run.loader, **_threads(plan, run)),
        batch_size=plan.batch_size,
        shape=(side, side),
        side_of=partial(side_of, plan=plan) if plan.resizing is not None else None,
        rank=ranks.rank,
        world_size=ranks.world_size,
    )


def _threads(plan: Plan, run: RunSpec) -> dict[str, int]:
    """As planned, to begin with; as many as the spec names, and no more."""
    threads = plan.compute.loader_threads
    return {"threads": threads} if run.spec.compute.loader_threads == "auto" else {"threads": threads, "most": threads}


def make_crew(
    pack: Pack, recipes: list[Recipe], ranks: Ranks, kind: LoaderKind = "auto", *, threads: int = 0, most: int = 0
) -> Crew:
    """The kind that suits the device and the pack, or the one that the operator names.

    Of `threads` to begin with, 0 for one: on a CPU each takes a core from the training. `Loader` measures how long the
    training waits and adds threads while batches are late, up to `most`, 0 for a share of the cores.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    most = most or max(1, int(cores * SHARE_OF_CORES / ranks.world_size))
    small = pack.shape is not None and max(pack.shape) <= SMALL_SIDE
    if kind == "auto":
        kind = "process" if ranks.device.type == "cuda" and not small else "threads"
    pin = ranks.device.type == "cuda"
    if kind == "dali":
        from training_core.vision.dali import DaliCrew  # noqa: PLC0415  an extra of its own

        return DaliCrew(pack, recipes, threads=most, device=ranks.device)
    if kind == "process":
        return ProcessCrew(pack, recipes, threads=threads or max(1, most // 2), most_threads=most, pin=pin)
    return ThreadCrew(pack, recipes, threads=threads or 1, most_threads=most, pin=pin)
