"""Every `"auto"` of the spec, resolved with its reason."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TypeVar

from training_core.data.augment.presets import Mixing
from training_core.events import PlanChosen
from training_core.failure import Failed
from training_core.origin import model_to_fetch
from training_core.spec import JobSpec, Model
from training_core.wire import Reason

Value = TypeVar("Value", str, int, float)

SMALL_IMAGE_PIXELS = 96
MOST_METRIC_POINTS = 2000
FEW_EPOCHS = 20
MANY_EPOCHS = 60
# What the last layer of each network is given.
FEATURES = {
    "small_cnn": 64,
    "resnet18": 512,
    "resnet50": 2048,
    "mobilenet_v3_small": 1024,
    "mobilenet_v3_large": 1280,
}


@dataclass(frozen=True)
class Plan:
    """What is going to be trained and how; the same on all ranks, and the same again after a resume."""

    model: str
    trainable: str
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
    mixing: Mixing
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
            "model.trainable": self.trainable,
            "compute.precision": self.precision,
            "training.image_size": self.image_size,
            "training.batch_size": self.batch_size,
            "training.optimizer.name": self.optimizer,
            "training.optimizer.learning_rate": self.learning_rate,
            "training.optimizer.weight_decay": self.weight_decay,
            "training.schedule.warmup_epochs": round(self.warmup_steps / self.steps_per_epoch, 4),
            "training.augmentation.preset": self.augmentation,
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
    spec: JobSpec,
    data: DataFacts,
    *,
    device: str,
    world_size: int,
    precision: str,
    precision_reason: str,
    weights_model: str | None = None,
) -> Plan:
    """Resolve `spec`; `weights_model` is the network of the weights it names, where known.

    Raises `Failed(unsupported)` when the global batch has fewer images than there are ranks.
    """
    training = spec.training
    reasons = {"compute.precision": precision_reason, "training.image_size": data.image_size_reason}
    model = _pick(reasons, "model.name", spec.model.name, *auto_model(spec, data.image_size, device, weights_model))
    batch = _batch_size(reasons, training.batch_size, data.train_images, world_size)
    optimizer = _pick(reasons, "training.optimizer.name", training.optimizer.name, "adamw", "robust without tuning")
    rate, rate_reason = _auto_learning_rate(optimizer, model, batch, spec.model)
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
        trainable=spec.model.trainable,
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
            "training.augmentation.preset",
            training.augmentation.preset,
            *_auto_augmentation(data, training.epochs, spec.model),
        ),
        mixing=Mixing(training.augmentation.mixup, training.augmentation.cutmix, training.seed, batch),
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


def _batch_size(reasons: dict[str, str], wanted: int | str, train_images: int, world_size: int) -> int:
    batch = _pick(reasons, "training.batch_size", wanted, *_auto_batch(train_images))
    if batch > train_images:
        batch, reasons["training.batch_size"] = train_images, "no more than the training images there are"
    if batch < world_size:
        raise Failed(
            Reason.UNSUPPORTED,
            f"a batch of {batch} images cannot be shared by {world_size} devices",
            "raise training.batch_size or use fewer devices",
        )
    return batch


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


def auto_model(spec: JobSpec, image_size: int, device: str, weights_model: str | None) -> tuple[str, str]:
    """The network that `auto` stands for, and why."""
    if spec.model.pretrained:
        return model_to_fetch(spec, device), "the cheapest network with published weights that suits the device"
    if weights_model is not None:
        return weights_model, "the network of model.weights"
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


def _auto_learning_rate(optimizer: str, model: str, batch: int, origin: Model) -> tuple[float, str]:
    if origin.trainable == "head":
        width = FEATURES[model]
        rate = 0.1 if optimizer == "sgd" else 5 / width
        return rate, f"{optimizer} on the last layer alone: a step moves the sum over {width} features"
    trained = origin.pretrained or origin.weights is not None
    if optimizer == "sgd" and trained:
        return 0.01 * batch / 256, "from trained weights, a tenth of what SGD takes from scratch"
    if optimizer == "sgd":
        return 0.1 * batch / 256, "0.1 for each 256 images of the batch (Goyal et al. 2017)"
    rate, network = (6e-3, "a small network") if model == "small_cnn" else (1e-3, "a torchvision network")
    if trained:
        return rate / 2, f"{optimizer} on {network} from trained weights, half of what it takes from scratch"
    return rate, f"{optimizer} on {network} trained from scratch"


def _auto_weight_decay(optimizer: str) -> tuple[float, str]:
    decay = {"sgd": 5e-4, "adam": 0.0, "adamw": 0.05}[optimizer]
    return decay, f"usual with {optimizer}; norms and biases are never decayed"


def _auto_warmup(total_steps: int, steps_per_epoch: int) -> tuple[float, str]:
    return min(1.0, 0.05 * total_steps / steps_per_epoch), "5 % of the steps, one epoch at most"


def _auto_augmentation(data: DataFacts, epochs: int, origin: Model) -> tuple[str, str]:
    if origin.trainable == "head":
        return "none", "the frozen trunk sees each image once"
    images = data.train_images
    if images >= 200_000:
        return "none", f"{images:,} training images are enough without"
    if epochs < FEW_EPOCHS:
        return "none", f"{epochs} epochs are too few for crops and flips to pay"
    if epochs < MANY_EPOCHS or images >= 50_000:
        return "light", f"{images:,} training images over {epochs} epochs: crops and flips delay overfitting"
    if data.channels == 1:
        return "light", f"{images:,} grey images over {epochs} epochs: brightness may be all they differ in"
    return "standard", f"{images:,} training images are seen {epochs} times: they should not look the same"


def _checkpoint_every(reasons: dict[str, str], wanted: int | str) -> int | None:
    if isinstance(wanted, int):
        reasons["training.checkpoint_every_steps"] = "as requested"
        return wanted
    reasons["training.checkpoint_every_steps"] = "at each evaluation, and every three minutes of a long epoch"
    return None
