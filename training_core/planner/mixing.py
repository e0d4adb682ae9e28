"""How whole batches are mixed, as a plan says it; `vision.augment.mix` does it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mixing:
    """MixUp and CutMix on whole batches: alphas of their beta distributions, 0 for off.

    With both on, each batch takes one of them by a coin.
    """

    mixup: float = 0.0
    cutmix: float = 0.0
    seed: int = 0
    batch_size: int = 1
