"""What learns, and from what: a network from nothing or from trained weights, whole or its last layer alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import nn

from training_core.checkpoints.checkpoint import Content
from training_core.contract.run_dir import RunSpec
from training_core.contract.spec import Sampling
from training_core.data.sampler import Indices, Sampler, read_columns
from training_core.distributed.ranks import Ranks
from training_core.planner.plan import Plan
from training_core.tasks.image_classification import task
from training_core.tasks.image_classification.features import FeatureFeed, ToDevice, Trunk, features_of
from training_core.tasks.image_classification.origin import model_of
from training_core.tasks.image_classification.transfer import Origin, numbers, read_origin, start_from
from training_core.vision.data_loaders import Feed, Statistics, measure, open_feed
from training_core.vision.dataset_view import Chosen
from training_core.vision.prefetch import Normalise


@dataclass(frozen=True)
class Materials:
    """What a training is made from: the data, its statistics, and trained weights where the spec names some."""

    run: RunSpec
    data: Chosen
    statistics: Statistics
    origin: Origin | None
    stop_requested: Callable[[], bool]

    def with_rows(self, train: Indices, validation: Indices) -> Materials:
        """The same with other rows, and no sampling but the plain one."""
        data = self.data.with_splits({"train": train, "validation": validation, "test": train[:0]})
        training = self.run.spec.training.model_copy(update={"sampling": Sampling()})
        spec = self.run.spec.model_copy(update={"training": training})
        return replace(self, data=data, run=self.run.model_copy(update={"spec": spec}))


@dataclass(frozen=True)
class Learner:
    """`network` is complete and what a checkpoint holds; `trained`, it or its last layer, takes what `feed` gives."""

    network: nn.Module
    trained: nn.Module
    feed: Feed | FeatureFeed
    normalise: Normalise | ToDevice


def gather(run: RunSpec, data: Chosen, content: Content | None, stop_requested: Callable[[], bool]) -> Materials:
    """The statistics are those that the weights were trained with, else the data's own; a resumed training keeps its.

    Raises what `read_origin` raises. What a checkpoint continues needs its origin no more.
    """
    statistics = measure(data.pack, data.splits["train"], data.meta.image_size)
    origin = read_origin(run, data.weights) if content is None else None
    kept = origin.statistics(data.meta.channels) if origin is not None else None
    if content is not None:
        preprocessing = content.about.get("preprocessing", {})
        mean, deviation = numbers(preprocessing, "mean"), numbers(preprocessing, "standard_deviation")
        kept = (mean, deviation) if mean and deviation else None
    if kept is not None:
        statistics = replace(statistics, mean=kept[0], deviation=kept[1])
    return Materials(run, data, statistics, origin, stop_requested)


def build_network(materials: Materials, plan: Plan, device: torch.device, content: Content | None = None) -> nn.Module:
    """The network of the plan as of a checkpoint, or as its origin gives it; the plan is told what was taken there."""
    network = task.build(plan)
    if content is not None:
        network.load_state_dict(content.trained)
    elif materials.origin is not None:
        key = "model.pretrained" if materials.run.spec.model.pretrained else "model.weights"
        plan.reasons[key] = start_from(materials.origin, network, materials.data.meta.classes)
    return network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def weights_model(run: RunSpec, origin: Origin | None, content: Content | None) -> str | None:
    """The network of the weights that the spec names, where known: from them, or from a checkpoint that followed."""
    if origin is not None:
        return origin.model
    return model_of(content.about) if content is not None and run.spec.model.weights is not None else None


def make_learner(network: nn.Module, materials: Materials, plan: Plan, ranks: Ranks) -> Learner:
    """With a frozen trunk, its features of all images are made here or found; raises what `features_of` raises."""
    data, statistics, run = materials.data, materials.statistics, materials.run
    if run.spec.model.trainable == "all":
        normalise = Normalise(statistics.mean, statistics.deviation, ranks.device)
        return Learner(network, network, open_feed(data, plan, run, ranks), normalise)
    trunk = Trunk(network)
    features = features_of(trunk, data, statistics, ranks, materials.stop_requested)
    rows, sampling = data.splits["train"], run.spec.training.sampling
    sampler = Sampler(rows, sampling, read_columns(data.items, rows, sampling), seed=plan.seed, epochs=plan.epochs)
    feed = FeatureFeed(data, features, sampler, plan.batch_size, ranks)
    return Learner(network, trunk.head, feed, ToDevice(ranks.device))
