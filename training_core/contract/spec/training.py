"""How a model is trained: optimizer, schedule, regularisation, and when to stop."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, field_validator

from training_core.contract.spec.part import Auto, Fraction, LayerName, Part, TeacherId

MetricName = Literal["validation/loss", "validation/accuracy"]
OptimizerName = Literal[
    "sgd", "adam", "adamw", "nadam", "radam", "adamax", "adagrad", "adadelta", "rmsprop", "adafactor", "muon"
]
ScheduleName = Literal["cosine", "linear", "constant", "one_cycle", "plateau"]
AugmentationPreset = Literal["none", "flip", "light", "standard", "strong", "medical"]


class Optimizer(Part):
    """`momentum` belongs to SGD, RMSprop and Muon, `betas` to the Adam family, `weight_decay` to all.

    Norms and biases are never decayed; `weight_decay_by_layer` gives modules, by the beginning of their name, a decay
    of their own. `learning_rate_test` measures the range of useful rates on the data before the training (Smith 2017)
    where `learning_rate` is `auto`.
    """

    name: OptimizerName | Auto = "auto"
    learning_rate: Annotated[float, Field(gt=0, le=100)] | Auto = "auto"
    learning_rate_test: bool | Auto = "auto"
    weight_decay: Annotated[float, Field(ge=0, le=10)] | Auto = "auto"
    weight_decay_by_layer: Annotated[dict[LayerName, Annotated[float, Field(ge=0, le=10)]], Field(max_length=64)] = (
        Field(default_factory=dict)
    )
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)


class Schedule(Part):
    """`plateau` multiplies the rate by `factor` after `patience` evaluations without a new best.

    `final_fraction` is what is left of the rate at the end of a decay.
    """

    name: ScheduleName | Auto = "auto"
    warmup_epochs: Annotated[float, Field(ge=0, le=100)] | Auto = "auto"
    final_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.0
    factor: Fraction = 0.1
    patience: Annotated[int, Field(ge=1, le=1000)] = 3


class EarlyStopping(Part):
    """Stop when the last `patience` evaluations brought no new best by at least `min_delta`, or at `target`.

    `auto` is five evaluations, and more where they hold fewer than 200 steps: an epoch of few images is few steps.
    A schedule that has not decayed yet is not cut off: its decay is brought forward and the training ends with it.
    `restore_best` makes the best model the result, else the last one is.
    """

    metric: MetricName = "validation/loss"
    patience: Annotated[int, Field(ge=1, le=1000)] | Auto = "auto"
    min_delta: Annotated[float, Field(ge=0)] = 0.0
    target: float | None = None
    restore_best: bool = True


class Resizing(Part):
    """Images grow from `start` of their full side to all of it, from the first epoch to `until` of the epochs."""

    start: Annotated[float, Field(ge=0.25, lt=1)] = 0.5
    until: Fraction = 0.7


class Distillation(Part):
    """Learn from a trained model too (Hinton, Vinyals & Dean 2015): `weight` is its share of the loss.

    `teacher` is the id of a checkpoint, or of a job, which stands for its best checkpoint.
    """

    teacher: TeacherId
    temperature: Annotated[float, Field(gt=0, le=100)] = 4.0
    weight: Annotated[float, Field(gt=0, le=1)] = 0.5


class Sampling(Part):
    """Which images make an epoch, and in which order.

    `balance: classes` draws every class equally often, `weights` by the dataset's weight column. `buckets: shape`
    makes batches of images of like aspect ratio, for networks that take any shape. `pacing: easy_to_hard` begins with
    the easiest images and has brought in all after `pacing_epochs` (a fraction of the epochs): it helps when the budget
    is short or labels are noisy, and not otherwise (Wu, Dyer & Neyshabur 2021), so it is off.
    """

    balance: Literal["none", "classes", "weights"] = "none"
    buckets: Literal["none", "shape"] = "none"
    pacing: Literal["none", "easy_to_hard"] = "none"
    pacing_epochs: Annotated[float, Field(gt=0, le=1)] = 0.5


class Augmentation(Part):
    """`preset` acts on each image, MixUp (Zhang et al. 2018) and CutMix (Yun et al. 2019) on the batch.

    `mixup` and `cutmix` are the alphas of their beta distributions; 0 turns them off. `check` trains a short pair, with
    and without, and reports whether the preset helps validation here.
    """

    preset: AugmentationPreset | Auto = "auto"
    mixup: Annotated[float, Field(ge=0, le=10)] = 0.0
    cutmix: Annotated[float, Field(ge=0, le=10)] = 0.0
    check: bool = False


class Training(Part):
    """`ema_decay` averages the weights over the steps, and the average is judged and kept; null turns it off.

    `gradient_clipping` is the largest norm of all gradients together; null leaves them. `keep_last_checkpoints` counts
    those that are kept beside the best and the pinned ones.
    """

    epochs: Annotated[int, Field(ge=1, le=10_000)] | Auto = "auto"
    batch_size: Annotated[int, Field(ge=1, le=65_536)] | Auto = "auto"
    image_size: Annotated[int, Field(ge=8, le=1024)] | Auto = "auto"
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    augmentation: Augmentation = Augmentation()
    sampling: Sampling = Sampling()
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] | Auto = "auto"
    ema_decay: Fraction | Auto | None = "auto"
    gradient_clipping: Annotated[float, Field(gt=0, le=10**6)] | Auto | None = "auto"
    resizing: Resizing | Auto | None = "auto"
    distillation: Distillation | None = None
    early_stopping: EarlyStopping | None = EarlyStopping()
    checkpoint_every_steps: Annotated[int, Field(ge=1)] | Auto = "auto"
    keep_last_checkpoints: Annotated[int, Field(ge=1, le=100)] = 1
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0

    @field_validator("augmentation", mode="before")
    @classmethod
    def _preset_alone(cls, given: object) -> object:
        """`"augmentation": "light"` is short for `{"preset": "light"}`."""
        return {"preset": given} if isinstance(given, str) else given


def is_better(value: float, best: float | None, metric: MetricName, min_delta: float = 0.0) -> bool:
    """Whether `value` improves on `best` by at least `min_delta`; NaN never does. Accuracy rises, loss falls."""
    if math.isnan(value):
        return False
    if best is None or math.isnan(best):
        return True
    gain = value - best if metric.endswith("accuracy") else best - value
    return gain > 0 and gain >= min_delta
