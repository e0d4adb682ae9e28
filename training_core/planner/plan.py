"""A training as it will be: every `"auto"` of the spec resolved, with its reason. Torch-free."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TypeVar

from training_core.contract.compute_plan import ComputePlan
from training_core.contract.errors import Failed, Reason
from training_core.contract.reports import PlanChosen
from training_core.contract.spec import Distillation, EarlyStopping, JobSpec, Optimizer, Resizing, Schedule
from training_core.contract.spec.batch_norm import check_share, least_images, smallest_side
from training_core.contract.spec.conflicts import check_together
from training_core.planner import recipe
from training_core.planner.combinations import check_combination
from training_core.planner.mixing import Mixing
from training_core.planner.recipe import DataFacts, TrainingFacts

Value = TypeVar("Value")

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
    patience: int
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
        """The same training, computed so.

        Raises `Failed(unsupported)` for more ranks than images of a batch, and for what does not go together.
        """
        check_combination(compute, self.optimizer)
        if self.batch_size < compute.ranks:
            raise Failed(
                Reason.UNSUPPORTED,
                f"a batch of {self.batch_size} images cannot be shared by {compute.ranks} devices",
                "raise training.batch_size or use fewer devices",
                field="training.batch_size",
            )
        self.check_batch_norm(1 if compute.sync_batch_norm else compute.ranks)
        plan = self.in_epochs(compute.epochs or self.epochs)
        return replace(plan, compute=compute, reasons=plan.reasons | compute.reasons)

    def check_batch_norm(self, ranks: int) -> None:
        """Raises `Failed(unsupported)` where a rank of so many has too few images for the batch norms."""
        side = smallest_side(self.image_size, self.resizing)
        check_share(self.model, self.trainable, side, batch_size=self.batch_size, ranks=ranks)

    @property
    def least_images(self) -> int:
        """Of one forward pass in training."""
        return least_images(self.model, self.trainable, smallest_side(self.image_size, self.resizing))

    def in_epochs(self, epochs: int) -> Plan:
        """The same training in fewer epochs or more, its warm-up in proportion."""
        if epochs == self.epochs:
            return self
        warmup = round(self.warmup_steps * epochs / self.epochs)
        return replace(self, epochs=epochs, warmup_steps=warmup, log_every=log_every(epochs * self.steps_per_epoch))

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
            "training.optimizer.learning_rate_test": self.learning_rate_test,
            "training.optimizer.weight_decay": self.weight_decay,
            "training.schedule.name": self.schedule,
            "training.schedule.warmup_epochs": round(self.warmup_steps / self.steps_per_epoch, 4),
            "training.augmentation.preset": self.augmentation,
            "training.label_smoothing": self.label_smoothing,
            "training.ema_decay": self.ema_decay,
            "training.gradient_clipping": self.gradient_clipping,
            "training.resizing": self.resizing is not None,
            "training.early_stopping.patience": self.patience if self.early_stopping is not None else None,
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
    """Resolve `spec` but for its compute; `weights_model` is the network of the weights it names, where known.

    Raises `Failed(unsupported)` for parts that exclude each other.
    """
    check_together(spec)
    training, wanted = spec.training, spec.training.optimizer
    picks = Picks({"training.image_size": data.image_size_reason})
    model = picks("model.name", spec.model.name, recipe.auto_model(spec, data.image_size, device, weights_model))
    batch = _batch_size(picks, training.batch_size, data.train_images)
    epochs = picks("training.epochs", training.epochs, recipe.auto_epochs(data, model, spec.model))
    facts = TrainingFacts(data, spec.model, model, batch, epochs)
    optimizer = picks("training.optimizer.name", wanted.name, recipe.auto_optimizer(facts))
    asked = training.schedule
    schedule = picks("training.schedule.name", asked.name, recipe.auto_schedule(facts))
    warmup = picks("training.schedule.warmup_epochs", asked.warmup_epochs, recipe.auto_warmup(facts, schedule))
    plan = Plan(
        model=model,
        trainable=spec.model.trainable,
        image_size=data.image_size,
        channels=data.channels,
        classes=data.classes,
        batch_size=batch,
        optimizer=optimizer,
        learning_rate=picks(
            "training.optimizer.learning_rate", wanted.learning_rate, recipe.auto_learning_rate(facts, optimizer)
        ),
        learning_rate_test=_rate_test(picks, wanted, facts, optimizer),
        weight_decay=picks(
            "training.optimizer.weight_decay", wanted.weight_decay, recipe.auto_weight_decay(facts, optimizer)
        ),
        weight_decay_by_layer=dict(wanted.weight_decay_by_layer),
        momentum=wanted.momentum,
        betas=wanted.betas,
        gradient_clipping=picks(
            "training.gradient_clipping", training.gradient_clipping, recipe.auto_gradient_clipping(facts)
        ),
        schedule=schedule,
        schedule_options=asked,
        warmup_steps=round(warmup * facts.steps_per_epoch),
        augmentation=picks(
            "training.augmentation.preset", training.augmentation.preset, recipe.auto_augmentation(facts)
        ),
        mixing=Mixing(training.augmentation.mixup, training.augmentation.cutmix, training.seed, batch),
        label_smoothing=picks("training.label_smoothing", training.label_smoothing, recipe.auto_label_smoothing(facts)),
        ema_decay=picks("training.ema_decay", training.ema_decay, recipe.auto_ema_decay(facts)),
        resizing=_resizing(picks, spec, facts),
        distillation=training.distillation,
        early_stopping=training.early_stopping,
        patience=_patience(picks, training.early_stopping, facts),
        epochs=epochs,
        steps_per_epoch=facts.steps_per_epoch,
        log_every=log_every(facts.total_steps),
        checkpoint_every_steps=_checkpoint_every(picks.reasons, training.checkpoint_every_steps),
        keep_last_checkpoints=training.keep_last_checkpoints,
        seed=training.seed,
        reasons=picks.reasons,
    )
    plan.check_batch_norm(1)
    return plan


@dataclass(frozen=True)
class Picks:
    """Takes what the spec pins, or the automatic value, and notes the reason."""

    reasons: dict[str, str]

    def __call__(self, key: str, wanted: Value | str, automatic: tuple[Value, str]) -> Value:
        if wanted == "auto":
            value, self.reasons[key] = automatic
            return value
        self.reasons[key] = "as requested"
        return wanted  # type: ignore[return-value]


def _batch_size(picks: Picks, wanted: int | str, train_images: int) -> int:
    key = "training.batch_size"
    batch: int = picks(key, wanted, recipe.auto_batch(train_images))
    if batch > train_images:
        batch, picks.reasons[key] = train_images, "no more than the training images there are"
    return batch


def _rate_test(picks: Picks, wanted: Optimizer, facts: TrainingFacts, optimizer: str) -> bool:
    key = "training.optimizer.learning_rate_test"
    if wanted.learning_rate != "auto":
        picks.reasons[key] = "the rate is given"
        return False
    return picks(key, wanted.learning_rate_test, recipe.auto_learning_rate_test(facts, optimizer))


def _resizing(picks: Picks, spec: JobSpec, facts: TrainingFacts) -> Resizing | None:
    if spec.training.sampling.buckets == "shape" or spec.model.trainable == "head":
        return None
    return picks("training.resizing", spec.training.resizing, recipe.auto_resizing(facts))


def _patience(picks: Picks, rule: EarlyStopping | None, facts: TrainingFacts) -> int:
    key = "training.early_stopping.patience"
    if rule is None:
        picks.reasons[key] = "as requested: nothing stops it early"
        return 0
    return picks(key, rule.patience, recipe.auto_patience(facts))


def log_every(total_steps: int) -> int:
    """Steps between two points of the training curves: dense for short runs, about 2,000 points at most."""
    for most_steps, every in ((200, 1), (1000, 5), (20_000, 10)):
        if total_steps <= most_steps:
            return every
    return math.ceil(total_steps / MOST_METRIC_POINTS)


def _checkpoint_every(reasons: dict[str, str], wanted: int | str) -> int | None:
    if isinstance(wanted, int):
        reasons["training.checkpoint_every_steps"] = "as requested"
        return wanted
    reasons["training.checkpoint_every_steps"] = "at each evaluation, and every three minutes of a long epoch"
    return None
