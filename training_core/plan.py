"""A training as it will be: every `"auto"` of the spec resolved, with its reason. Torch-free."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TypeVar

from training_core import recipe
from training_core.data.augment.presets import Mixing
from training_core.events import PlanChosen
from training_core.failure import Failed
from training_core.planner.compute_plan import ComputePlan
from training_core.recipe import DataFacts
from training_core.spec import Distillation, EarlyStopping, JobSpec, Resizing, Schedule
from training_core.wire import Reason

Value = TypeVar("Value", str, int, float)

MOST_METRIC_POINTS = 2000


@dataclass(frozen=True)
class Plan:
    """What is going to be trained and how; the same on all ranks, and the same again after a resume.

    `compute` says on what. All else is decided without it: the same training on one device or eight.
    """

    model: str
    trainable: str
    image_size: int
    channels: int
    classes: int
    batch_size: int
    optimizer: str
    learning_rate: float
    learning_rate_test: bool
    weight_decay: float
    weight_decay_by_layer: dict[str, float]
    momentum: float
    betas: tuple[float, float]
    gradient_clipping: float | None
    schedule: str
    schedule_options: Schedule
    warmup_steps: int
    augmentation: str
    mixing: Mixing
    label_smoothing: float
    ema_decay: float | None
    resizing: Resizing | None
    distillation: Distillation | None
    early_stopping: EarlyStopping | None
    epochs: int
    steps_per_epoch: int
    log_every: int
    checkpoint_every_steps: int | None
    keep_last_checkpoints: int
    seed: int
    compute: ComputePlan = field(default_factory=ComputePlan)
    reasons: dict[str, str] = field(default_factory=dict)

    @property
    def total_steps(self) -> int:
        return self.epochs * self.steps_per_epoch

    @property
    def precision(self) -> str:
        return self.compute.precision

    @property
    def world_size(self) -> int:
        return self.compute.ranks

    def on(self, compute: ComputePlan) -> Plan:
        """The same training, computed so. Raises `Failed(unsupported)` for more ranks than images of a batch."""
        if self.batch_size < compute.ranks:
            raise Failed(
                Reason.UNSUPPORTED,
                f"a batch of {self.batch_size} images cannot be shared by {compute.ranks} devices",
                "raise training.batch_size or use fewer devices",
            )
        return replace(self, compute=compute, reasons=self.reasons | compute.reasons)

    def report(self) -> PlanChosen:
        compute = self.compute
        resolved: dict[str, str | int | float | bool | None] = {
            "model.name": self.model,
            "model.trainable": self.trainable,
            "compute.strategy": compute.strategy,
            "compute.precision": compute.precision,
            "compute.memory_format": compute.memory_format,
            "compute.micro_batch_size": compute.micro_batch_size or compute.share(self.batch_size),
            "compute.gradient_accumulation_steps": compute.accumulation_steps(self.batch_size),
            "compute.compile": compute.compile,
            "compute.activation_checkpointing": compute.activation_checkpointing,
            "compute.gradient_compression": compute.gradient_compression,
            "compute.sync_batch_norm": compute.sync_batch_norm,
            "training.epochs": self.epochs,
            "training.image_size": self.image_size,
            "training.batch_size": self.batch_size,
            "training.optimizer.name": self.optimizer,
            "training.optimizer.learning_rate": self.learning_rate,
            "training.optimizer.weight_decay": self.weight_decay,
            "training.schedule.name": self.schedule,
            "training.schedule.warmup_epochs": round(self.warmup_steps / self.steps_per_epoch, 4),
            "training.augmentation.preset": self.augmentation,
            "training.label_smoothing": self.label_smoothing,
            "training.ema_decay": self.ema_decay,
            "training.gradient_clipping": self.gradient_clipping,
            "training.resizing": self.resizing is not None,
            "training.checkpoint_every_steps": self.checkpoint_every_steps,
        }
        return PlanChosen(
            resolved=resolved,
            reasons=self.reasons,
            total_steps=self.total_steps,
            total_epochs=self.epochs,
            world_size=compute.ranks,
            compute=compute.model_dump(mode="json", exclude={"reasons", "prediction"}),
            prediction=compute.prediction.model_dump(mode="json") if compute.prediction else None,
        )


def choose_plan(spec: JobSpec, data: DataFacts, *, device: str, weights_model: str | None = None) -> Plan:
    """Resolve `spec` but for its compute; `weights_model` is the network of the weights it names, where known."""
    training, wanted = spec.training, spec.training.optimizer
    reasons = {"training.image_size": data.image_size_reason}
    model = _pick(
        reasons, "model.name", spec.model.name, *recipe.auto_model(spec, data.image_size, device, weights_model)
    )
    batch = _batch_size(reasons, training.batch_size, data.train_images)
    epochs = _pick(reasons, "training.epochs", training.epochs, *recipe.auto_epochs(data))
    optimizer = _pick(reasons, "training.optimizer.name", wanted.name, "adamw", "robust without tuning")
    rate = _pick(
        reasons,
        "training.optimizer.learning_rate",
        wanted.learning_rate,
        *recipe.auto_learning_rate(optimizer, model, batch, spec.model),
    )
    steps_per_epoch = data.train_images // batch
    warmup = _pick(
        reasons,
        "training.schedule.warmup_epochs",
        training.schedule.warmup_epochs,
        *recipe.auto_warmup(epochs * steps_per_epoch, steps_per_epoch),
    )
    return Plan(
        model=model,
        trainable=spec.model.trainable,
        image_size=data.image_size,
        channels=data.channels,
        classes=data.classes,
        batch_size=batch,
        optimizer=optimizer,
        learning_rate=rate,
        learning_rate_test=wanted.learning_rate_test is True,
        weight_decay=_pick(
            reasons, "training.optimizer.weight_decay", wanted.weight_decay, *recipe.auto_weight_decay(optimizer)
        ),
        weight_decay_by_layer=dict(wanted.weight_decay_by_layer),
        momentum=wanted.momentum,
        betas=wanted.betas,
        gradient_clipping=None if training.gradient_clipping == "auto" else training.gradient_clipping,
        schedule="cosine" if training.schedule.name == "auto" else training.schedule.name,
        schedule_options=training.schedule,
        warmup_steps=round(warmup * steps_per_epoch),
        augmentation=_pick(
            reasons,
            "training.augmentation.preset",
            training.augmentation.preset,
            *recipe.auto_augmentation(data, epochs, spec.model),
        ),
        mixing=Mixing(training.augmentation.mixup, training.augmentation.cutmix, training.seed, batch),
        label_smoothing=0.0 if training.label_smoothing == "auto" else training.label_smoothing,
        ema_decay=None if training.ema_decay == "auto" else training.ema_decay,
        resizing=None if training.resizing == "auto" else training.resizing,
        distillation=training.distillation,
        early_stopping=training.early_stopping,
        epochs=epochs,
        steps_per_epoch=steps_per_epoch,
        log_every=log_every(epochs * steps_per_epoch),
        checkpoint_every_steps=_checkpoint_every(reasons, training.checkpoint_every_steps),
        keep_last_checkpoints=training.keep_last_checkpoints,
        seed=training.seed,
        reasons=reasons,
    )


def _batch_size(reasons: dict[str, str], wanted: int | str, train_images: int) -> int:
    batch = _pick(reasons, "training.batch_size", wanted, *recipe.auto_batch(train_images))
    if batch > train_images:
        batch, reasons["training.batch_size"] = train_images, "no more than the training images there are"
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


def _checkpoint_every(reasons: dict[str, str], wanted: int | str) -> int | None:
    if isinstance(wanted, int):
        reasons["training.checkpoint_every_steps"] = "as requested"
        return wanted
    reasons["training.checkpoint_every_steps"] = "at each evaluation, and every three minutes of a long epoch"
    return None
