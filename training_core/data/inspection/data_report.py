"""The data report as people and programs read it (`GET /v1/jobs/{id}/data_report`); it needs pydantic and no more.

Its size is bounded whatever the data holds.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

MOST_EXAMPLES = 12
MOST_CLASSES = 1000
MOST_IGNORED = 100


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Example(Part):
    """One image of a finding. `split` is the one it stands in, or stood in before it was removed."""

    path: str
    label: str
    split: str = Field(description="train, validation, test, or none where it stands in no split")
    value: float | None = Field(default=None, description="what was measured, in the units of the threshold")
    copy_of: str | None = Field(default=None, description="path of the image that this one is a copy of")
    problem: str | None = Field(default=None, description="why an image could not be decoded")
    suggested_label: str | None = Field(default=None, description="the label that the model is confident of")
    thumbnail: str | None = Field(default=None, description="data:image/jpeg;base64 URL, longer side up to 96 px")


class Finding(Part):
    """One kind of finding: how many images, what was done, and the worst of them."""

    finding: str
    meaning: str = Field(description="what this is and why it matters, in plain words")
    action: Literal["remove", "flag"] = Field(description="what the policy says; undecodable images are always removed")
    threshold: str | None = Field(default=None, description="the rule that was applied, with its numbers")
    count: int = Field(ge=0, description="images found")
    removed: int = Field(ge=0, description="images among them that are left out")
    examples: list[Example] = Field(description=f"the worst first, at most {MOST_EXAMPLES}")


class ClassBalance(Part):
    """Images of one class by split, after cleaning."""

    label: str
    train: int
    validation: int
    test: int
    removed: int


class SizeBin(Part):
    """Images whose shorter side is from `from_pixels` to below `to_pixels`."""

    from_pixels: int
    to_pixels: int
    count: int


class Ignored(Part):
    """A file that is no sample."""

    path: str
    reason: str


class LabelCheckResult(Part):
    """The second inspection, after the training: what models that had not seen an image thought of its label."""

    folds: int
    epochs: int = Field(description="epochs that each of the models was trained")
    images: int = Field(description="training and validation images that were judged")
    accuracy: float = Field(description="share of them whose label models that had not seen them agree with")
    difficulty_file: str = Field(
        description="a CSV beside this report, at …/data_report/difficulty: path, label, split, suggested_label, "
        "self_confidence and difficulty of every image judged; beside the images it serves dataset.columns.difficulty"
    )


class DataReport(Part):
    """The inspection of one dataset version under one cleaning policy; the training uses exactly these images."""

    dataset_version: str
    format: str = Field(description="class-folders, manifest, webdataset, parquet or idx")
    image_size: int = Field(description="side, in pixels, of the square that the network sees")
    channels: int = Field(description="1 grey, 3 colour")
    images: int = Field(description="samples found, decodable or not")
    undecodable: int = Field(description="samples that could not be decoded")
    removed: int = Field(description="samples left out, for any reason; removed.jsonl lists them all")
    splits: dict[str, int] = Field(description="images in train, validation and test, after cleaning")
    splits_made: list[str] = Field(description="splits that the dataset did not bring and that were made")
    class_count: int
    classes: list[ClassBalance] = Field(description=f"smallest training class first, at most {MOST_CLASSES}")
    imbalance: float | None = Field(
        description="largest training class divided by the smallest; null with an empty one"
    )
    sizes: list[SizeBin] = Field(description="histogram of the shorter side of the original images")
    findings: list[Finding]
    ignored_count: int = Field(description="files that are no samples")
    ignored: list[Ignored] = Field(description=f"the first of them, at most {MOST_IGNORED}")
    label_check: LabelCheckResult | None = Field(
        default=None,
        description="how dataset.label_check judged, whose label_errors and hardest_examples stand in findings; null "
        "without it and until the training has ended",
    )
