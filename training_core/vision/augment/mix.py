"""MixUp (Zhang et al. 2018) and CutMix (Yun et al. 2019) on a batch that lies on the device already."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from training_core.planner.mixing import Mixing

MIX_STREAM = 5


@dataclass(frozen=True)
class Mixed:
    """`share` of each image is its own, the rest its partner's."""

    images: torch.Tensor
    labels: torch.Tensor
    others: torch.Tensor | None = None
    share: float = 1.0

    def loss(self, loss: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """`loss(labels)` of both labels by their shares: cross entropy is linear in its target."""
        if self.others is None:
            return loss(self.labels)
        return self.share * loss(self.labels) + (1 - self.share) * loss(self.others)


def mix(images: torch.Tensor, labels: torch.Tensor, mixing: Mixing, *, step: int, world_size: int = 1) -> Mixed:
    """This rank's share of the batch of `step`, `(batch, channels, height, width)` floats, changed in place.

    Follows from seed and step alone. The partner of an image is another of the batch at a fixed distance, which the
    order of the epoch makes random; where `world_size` divides that distance and the batch, the result does not depend
    on the world size.
    """
    if mixing.mixup == mixing.cutmix == 0 or len(images) < 2:
        return Mixed(images, labels)
    random = np.random.default_rng([mixing.seed, MIX_STREAM, step])
    cut = random.random() < 0.5 if mixing.mixup and mixing.cutmix else mixing.cutmix > 0
    alpha = mixing.cutmix if cut else mixing.mixup
    share = float(random.beta(alpha, alpha))
    shift = partner_distance(mixing.batch_size, world_size)
    others = torch.roll(labels, -shift)
    partners = torch.roll(images, -shift, dims=0)
    if not cut:
        return Mixed(images.mul_(share).add_(partners, alpha=1 - share), labels, others, share)
    height, width = images.shape[2:]
    top, bottom, left, right = _box(random, share, height, width)
    images[:, :, top:bottom, left:right] = partners[:, :, top:bottom, left:right]
    return Mixed(images, labels, others, 1 - (bottom - top) * (right - left) / (height * width))


def partner_distance(batch_size: int, world_size: int) -> int:
    """Positions within a rank's share, 1 at least: half of the batch where that is a power of two, else less."""
    largest = batch_size & -batch_size
    distance = largest // 2 if largest == batch_size else largest
    return max(1, distance // world_size) if batch_size % world_size == distance % world_size == 0 else 1


def _box(random: np.random.Generator, share: float, height: int, width: int) -> tuple[int, int, int, int]:
    """Top, bottom, left and right of a part with about `1 - share` of the area, cut off at the border."""
    side = (1 - share) ** 0.5 / 2
    y, x = random.random(), random.random()
    top, bottom = max(0, round((y - side) * height)), min(height, round((y + side) * height))
    left, right = max(0, round((x - side) * width)), min(width, round((x + side) * width))
    return top, bottom, left, right
