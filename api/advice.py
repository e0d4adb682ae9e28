"""Warnings of `validate_only`: what is allowed, and probably not what its author wants."""

from __future__ import annotations

from api.profiles import Profiles
from training_core.contract.spec import Columns, JobSpec


def warnings_for(spec: JobSpec, profiles: Profiles) -> list[str]:
    """One sentence each, beginning with the field that it is about."""
    return [*_about_training(spec), *_about_stopping(spec), *_about_compute(spec, profiles), *_about_data(spec)]


def _about_training(spec: JobSpec) -> list[str]:
    found = []
    if spec.model.pretrained and spec.model.name == "small_cnn":
        found.append(
            "model.pretrained cannot be met: torchvision publishes no weights of small_cnn; name another model"
        )
    if spec.training.augmentation.check and spec.training.augmentation.preset == "none":
        found.append("training.augmentation.check has nothing to compare: the preset is none")
    optimizer, schedule = spec.training.optimizer, spec.training.schedule
    if optimizer.learning_rate_test is True and optimizer.learning_rate != "auto":
        found.append("training.optimizer.learning_rate_test has no effect: training.optimizer.learning_rate is given")
    if schedule.name != "plateau" and schedule.model_fields_set & {"factor", "patience"}:
        found.append("training.schedule.factor and .patience belong to the schedule plateau, and have no effect here")
    return found


def _about_stopping(spec: JobSpec) -> list[str]:
    stopping, epochs = spec.training.early_stopping, spec.training.epochs
    if stopping is None:
        return []
    found = []
    if epochs != "auto" and stopping.patience != "auto" and stopping.patience >= epochs:
        found.append("training.early_stopping never acts: its patience is not below training.epochs")
    if stopping.target is not None and not _in_reach(stopping.metric, stopping.target):
        found.append(f"training.early_stopping.target is never reached by {stopping.metric}")
    return found


def _in_reach(metric: str, target: float) -> bool:
    """An accuracy lies between 0 and 1, a loss above 0."""
    return target <= 1 if metric.endswith("accuracy") else target > 0


def _about_compute(spec: JobSpec, profiles: Profiles) -> list[str]:
    compute, found = spec.compute, []
    profile = profiles.by_name.get(compute.profile)
    offered = [profile] if profile is not None else list(profiles.by_name.values())
    if spec.budget.max_cost is not None and not any(one.price_per_hour for one in offered):
        found.append("budget.max_cost limits nothing: the profile has no price; use budget.max_device_hours")
    alone = compute.strategy == "single" or (profile is not None and profile.devices == 1)
    if alone and compute.gradient_compression not in ("auto", "none"):
        found.append("compute.gradient_compression has no effect on one device")
    if alone and compute.sync_batch_norm is True:
        found.append("compute.sync_batch_norm has no effect on one device")
    if profile is not None and profile.device == "cpu" and compute.precision in ("bf16", "fp16"):
        found.append(f"compute.precision {compute.precision} is many times slower than fp32 on most CPUs")
    batch, piece = spec.training.batch_size, compute.micro_batch_size
    if batch != "auto" and piece != "auto" and piece > batch:
        found.append("compute.micro_batch_size has no effect: it is more than training.batch_size")
    return found


def _about_data(spec: JobSpec) -> list[str]:
    dataset, found = spec.dataset, []
    if dataset.format in ("class-folders", "idx"):
        if dataset.columns != Columns():
            found.append(f"dataset.columns has no effect: {dataset.format} has no columns")
        if dataset.split.group_by is not None:
            found.append(f"dataset.split.group_by cannot be met: {dataset.format} has no columns")
    if spec.training.sampling.balance == "weights" and dataset.columns.weight is None:
        found.append("training.sampling.balance weights needs the name of a column in dataset.columns.weight")
    return found
