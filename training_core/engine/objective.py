"""What a training minimises."""

from __future__ import annotations

import torch

from training_core.engine.distillation import Teacher, soft_loss_sum
from training_core.planner.plan import Plan
from training_core.tasks.image_classification import task
from training_core.vision.augment.mix import Mixed


class Objective:
    """Sums over images, so that the pieces of a batch add up to the loss of the whole.

    With a teacher its part is `plan.distillation.weight`, and the labels' what is left.
    """

    def __init__(self, plan: Plan, teacher: Teacher | None = None) -> None:
        self._label_smoothing = plan.label_smoothing
        self._teacher, self._distillation = teacher, plan.distillation

    def loss_sum(self, logits: torch.Tensor, mixed: Mixed) -> torch.Tensor:
        """Of `logits` `(images, classes)`, which the network made of `mixed.images`."""
        hard = mixed.loss(lambda truth: task.loss_sum(logits, truth, self._label_smoothing))
        if self._teacher is None or self._distillation is None:
            return hard
        weight, temperature = self._distillation.weight, self._distillation.temperature
        soft = soft_loss_sum(logits, self._teacher.logits(mixed.images), temperature)
        return (1 - weight) * hard + weight * soft
