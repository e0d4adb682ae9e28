"""What a training minimises."""

from __future__ import annotations

import torch

from training_core.data.augment.mix import Mixed
from training_core.plan import Plan
from training_core.tasks import image_classification as task


class Objective:
    """Sums over images, so that the pieces of a batch add up to the loss of the whole."""

    def __init__(self, plan: Plan) -> None:
        self._label_smoothing = plan.label_smoothing

    def loss_sum(self, logits: torch.Tensor, mixed: Mixed) -> torch.Tensor:
        """Of `logits` `(images, classes)`, which the network made of `mixed.images`."""
        return mixed.loss(lambda truth: task.loss_sum(logits, truth, self._label_smoothing))
