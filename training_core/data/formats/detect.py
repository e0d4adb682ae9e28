"""Which format a dataset is in, where the spec does not say."""

from __future__ import annotations

from collections.abc import Callable

from training_core.contract.spec import DatasetFormat
from training_core.data.formats.class_folders import class_places, open_class_folders
from training_core.data.formats.context import Context, Opened
from training_core.data.formats.idx import open_idx
from training_core.data.formats.manifest import find_manifests, is_named_like_one, open_manifest
from training_core.data.formats.parquet import has_images, open_parquet_images
from training_core.data.formats.webdataset import open_webdataset

FORMATS: dict[DatasetFormat, Callable[[Context], Opened]] = {
    "class-folders": open_class_folders,
    "manifest": open_manifest,
    "webdataset": open_webdataset,
    "parquet": open_parquet_images,
    "idx": open_idx,
}


def detect(context: Context) -> DatasetFormat:
    """Class folders win over what lies beside them, unless a table is named like a manifest or columns are named."""
    survey = context.survey
    if survey.images:
        return _of_images(context)
    if survey.idx:
        return "idx"
    if survey.tars:
        return "webdataset"
    if survey.parquet and has_images(context):
        return "parquet"
    return "manifest" if survey.manifests or survey.parquet else "class-folders"


def _of_images(context: Context) -> DatasetFormat:
    survey, columns = context.survey, context.dataset.columns
    if not survey.manifests and not survey.parquet:
        return "class-folders"
    if columns.image != "auto" or columns.label != "auto":
        return "manifest"
    tables = find_manifests(context)
    in_folders = len({name for name, _ in class_places(survey.folders).values()}) > 1
    return "manifest" if tables and (not in_folders or is_named_like_one(tables[0][1])) else "class-folders"
