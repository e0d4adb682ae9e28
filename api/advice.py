"""Warnings of `validate_only`: what is allowed, and probably not what its author wants."""

from __future__ import annotations

from training_core.spec import Columns, JobSpec


def warnings_for(spec: JobSpec) -> list[str]:
    """One sentence each, beginning with the field that it is about."""
    return [*_about_training(spec), *_about_data(spec)]


def _about_training(spec: JobSpec) -> list[str]:
    found = []
    stopping = spec.training.early_stopping
    if stopping is not None and spec.training.epochs != "auto" and stopping.patience >= spec.training.epochs:
        found.append("training.early_stopping never acts: its patience is not below training.epochs")
    if spec.model.pretrained and spec.model.name == "small_cnn":
        found.append(
            "model.pretrained cannot be met: torchvision publishes no weights of small_cnn; name another model"
        )
    if spec.training.augmentation.check and spec.training.augmentation.preset == "none":
        found.append("training.augmentation.check has nothing to compare: the preset is none")
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
