"""Every `"auto"` of the spec, resolved with its reason."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TypeVar

from training_core.events import PlanChosen
from training_core.failure import Failed
from training_core.spec import JobSpec
from training_core.wire import Reason

Value = TypeVar("Value", str, int, float)

SMALL_IMAGE_PIXELS = 96
MOST_METRIC_POINTS = 2000
FEW_EPOCHS = 20


@dataclass(frozen=True)
class Plan:
    """What is going to be trained and how; the same on all ranks, and the same again after a resume."""

    model: str
    image_size: int
    channels: int
    classes: int
    batch_size: int
    optimizer: str
    learning_rate: float
    weight_decay: float
    momentum: float
    schedule: str
    warmup_steps: int
    augmentation: str
    precision: str
    label_smoothing: float
    epochs: int
    steps_per_epoch: int
    log_every: int
    checkpoint_every_steps: int | None
    seed: int
    world_size: int
    reasons: dict[str, str] = field(default_factory=dict)

    @property
    def total_steps(self) -> int:
        return self.epochs * self.steps_per_epoch

    def report(self) -> PlanChosen:
        resolved: dict[str, str | int | float | bool | None] = {
            "model.name": self.model,
            "compute.precision": self.precision,
            "training.image_size": self.image_size,
            "training.batch_size": self.batch_size,
            "training.optimizer.name": self.optimizer,
            "training.optimizer.learning_rate": self.learning_rate,
            "training.optimizer.weight_decay": self.weight_decay,
            "training.schedule.warmup_epochs": round(self.warmup_steps / self.steps_per_epoch, 4),
            "training.augmentation": self.augmentation,
            "training.checkpoint_every_steps": self.checkpoint_every_steps,
        }
        return PlanChosen(
            resolved=resolved,
            reasons=self.reasons,
            total_steps=self.total_steps,
            total_epochs=self.epochs,
            world_size=self.world_size,
        )


@dataclass(frozen=True)
class DataFacts:
    """What the choices depend on: training images, classes, channels, and the side of the prepared square images."""

    train_images: int
    classes: int
    channels: int
    image_size: int
    image_size_reason: str


def choose_plan(
    spec: JobSpec, data: DataFacts, *, device: str, world_size: int, precision: str, precision_reason: str
) -> Plan:
    """Resolve `spec`. Raises `Failed(unsupported)` when the global batch has fewer images than there are ranks."""
    training = spec.training
    reasons = {"compute.precision": precision_reason, "training.image_size": data.image_size_reason}
    model = _pick(reasons, "model.name", spec.model.name, *_auto_model(data.image_size, device))
    batch = _pick(reasons, "training.batch_size", training.batch_size, *_auto_batch(data.train_images))
    if batch > data.train_images:
        batch, reasons["training.batch_size"] = data.train_images, "no more than the training images there are"
    if batch < world_size:
        raise Failed(
            Reason.UNSUPPORTED,
            f"a batch of {batch} images cannot be shared by {world_size} devices",
            "raise training.batch_size or use fewer devices",
        )
    optimizer = _pick(reasons, "training.optimizer.name", training.optimizer.name, "adamw", "robust without tuning")
    rate, rate_reason = _auto_learning_rate(optimizer, model, batch)
    decay, decay_reason = _auto_weight_decay(optimizer)
    steps_per_epoch = data.train_images // batch
    total_steps = training.epochs * steps_per_epoch
    warmup = _pick(
        reasons,
        "training.schedule.warmup_epochs",
        training.schedule.warmup_epochs,
        *_auto_warmup(total_steps, steps_per_epoch),
    )
    return Plan(
        model=model,
        image_size=data.image_size,
        channels=data.channels,
        classes=data.classes,
        batch_size=batch,
        optimizer=optimizer,
        learning_rate=_pick(
            reasons, "training.optimizer.learning_rate", training.optimizer.learning_rate, rate, rate_reason
        ),
        weight_decay=_pick(
            reasons, "training.optimizer.weight_decay", training.optimizer.weight_decay, decay, decay_reason
        ),
        momentum=training.optimizer.momentum,
        schedule=training.schedule.name,
        warmup_steps=round(warmup * steps_per_epoch),
        augmentation=_pick(
            reasons,
            "training.augmentation",
            training.augmentation,
            *_auto_augmentation(data.train_images, training.epochs),
        ),
        precision=precision,
        label_smoothing=training.label_smoothing,
        epochs=training.epochs,
        steps_per_epoch=steps_per_epoch,
        log_every=log_every(total_steps),
        checkpoint_every_steps=_checkpoint_every(reasons, training.checkpoint_every_steps),
        seed=training.seed,
        world_size=world_size,
        reasons=reasons,
    )


def log_every(total_steps: int) -> int:
    """Steps between two points of the training curves: dense for short runs, about 2,000 points at most."""
    for most_steps, every in ((200, 1), (1000, 5), (20_000, 10)):
        if total_steps <= most_steps:
            return every
    return math.ceil(total_steps / MOST_METRIC_POINTS)


def _pick(reasons: dict[str, str], key: str, wanted: Value | str, automatic: Value, reason: str) -> Value:
    """What the spec pins, or the automatic value with its reason."""
    if wanted == "auto":
        reasons[key] = reason
        return automatic
    reasons[key] = "as requested"
    return wanted  # type: ignore[return-value]


def _auto_model(image_size: int, device: str) -> tuple[str, str]:
    if image_size <= SMALL_IMAGE_PIXELS:
        return "small_cnn", f"images of {image_size} px are small"
    if device == "cpu":
        return "mobilenet_v3_small", f"images of {image_size} px on a CPU: the cheapest torchvision model"
    return "resnet18", f"images of {image_size} px on a GPU"


def _auto_batch(images: int) -> tuple[int, str]:
    for fewer_than, batch in ((1000, 32), (20_000, 64), (100_000, 128)):
        if images < fewer_than:
            return batch, f"fewer than {fewer_than:,} training images"
    return 256, f"{images:,} training images"


def _auto_learning_rate(optimizer: str, model: str, batch: int) -> tuple[float, str]:
    if optimizer == "sgd":
        return 0.1 * batch / 256, "0.1 for each 256 images of the batch (Goyal et al. 2017)"
    if model == "small_cnn":
        return 6e-3, f"{optimizer} on a small network"
    return 1e-3, f"{optimizer} on a torchvision network trained from scratch"


def _auto_weight_decay(optimizer: str) -> tuple[float, str]:
    decay = {"sgd": 5e-4, "adam": 0.0, "adamw": 0.05}[optimizer]
    return decay, f"usual with {optimizer}; norms and biases are never decayed"


def _auto_warmup(total_steps: int, steps_per_epoch: int) -> tuple[float, str]:
    return min(1.0, 0.05 * total_steps / steps_per_epoch), "5 % of the steps, one epoch at most"


def _auto_augmentation(images: int, epochs: int) -> tuple[str, str]:
    if images >= 200_000:
        return "none", f"{images:,} training images are enough without"
    if epochs < FEW_EPOCHS:
        return "none", f"{epochs} epochs are too few for crops and flips to pay"
    return "light", f"{images:,} training images over {epochs} epochs: crops and flips delay overfitting"


def _checkpoint_every(reasons: dict[str, str], wanted: int | str) -> int | None:
    if isinstance(wanted, int):
        reasons["training.checkpoint_every_steps"] = "as requested"
        return wanted
    reasons["training.checkpoint_every_steps"] = "at each evaluation, and every three minutes of a long epoch"
    return None
