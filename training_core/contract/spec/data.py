"""Where the data is, what is cleaned out of it, and how it is split."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from training_core.contract import uploads
from training_core.contract.spec.part import Auto, ColumnName, DatasetUri, Fraction, Part, SecretName

DatasetFormat = Literal["class-folders", "manifest", "webdataset", "parquet", "idx"]
Action = Literal["remove", "flag", "ignore"]


class Split(Part):
    """Fractions taken from the training images where the dataset brings no split of its own.

    `group_by` names a column: samples of one group (a patient, a camera, a scene) never part. Copies of one image
    never part either. The seed is the split's own: trials with other training seeds validate on the same images.
    """

    validation: Fraction = 0.1
    test: Annotated[float, Field(ge=0, lt=1)] = 0.0
    stratify: bool = True
    group_by: ColumnName | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0

    @model_validator(mode="after")
    def _leaves_training_data(self) -> Split:
        if self.validation + self.test >= 1:
            raise ValueError("validation and test together must leave something to train on (their sum is 1 or more)")
        return self


class Columns(Part):
    """Columns of a manifest, a Parquet table or the JSON of a WebDataset sample; `auto` finds the usual names."""

    image: ColumnName | Auto = "auto"
    label: ColumnName | Auto = "auto"
    split: ColumnName | Auto | None = "auto"
    weight: ColumnName | None = None
    difficulty: ColumnName | None = None


class Cleaning(Part):
    """What happens to each finding. What is removed is listed with its reason; what is flagged stays and is shown.

    Images that cannot be decoded are always left out; more of them than `max_bad_fraction` end the job while it is
    preparing, with the report attached.
    """

    exact_duplicates: Action = "remove"
    leakage: Action = "remove"
    near_duplicates: Action = "flag"
    conflicting_labels: Action = "flag"
    blurred: Action = "flag"
    dark: Action = "flag"
    bright: Action = "flag"
    low_information: Action = "flag"
    odd_size: Action = "flag"
    odd_aspect: Action = "flag"
    max_bad_fraction: Annotated[float, Field(ge=0, le=1)] = 0.01


class LabelCheck(Part):
    """A second inspection after a first model: likely label errors and the hardest examples.

    Confident learning on out-of-fold predictions (Northcutt, Jiang & Chuang 2021); costs about `folds` trainings of
    `epochs` each.
    """

    folds: Annotated[int, Field(ge=2, le=10)] = 3
    epochs: Annotated[int, Field(ge=1, le=1000)] | Auto = "auto"


class Dataset(Part):
    """Where the data is: an fsspec URI or the id of an upload; credentials by the name of a secret, never by value."""

    uri: DatasetUri
    format: DatasetFormat | Auto = "auto"
    columns: Columns = Columns()
    split: Split = Split()
    credentials: SecretName | None = None
    cleaning: Cleaning = Cleaning()
    label_check: LabelCheck | None = None
    packing: Literal["auto", "raw", "jpeg", "original"] = "auto"

    @model_validator(mode="after")
    def _reads_an_upload_without_credentials(self) -> Dataset:
        if self.credentials is not None and uploads.upload_of(self.uri) is not None:
            raise ValueError("an uploaded dataset is read without credentials; leave dataset.credentials out")
        return self
