"""What a prepared dataset is, in one small file that is written last: `meta.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

META_FILE = "meta.json"

Encoding = Literal["raw", "jpeg", "original"]


class Meta(BaseModel):
    """`image_size` is the side in pixels of the square that is trained on; packed images may be larger.

    `height` and `width` are there when all packed images are raw and of that size. `bytes` is what the folder takes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset_version: str
    source: str
    format: str
    classes: list[str]
    image_size: int
    image_size_reason: str
    channels: int
    encoding: Encoding
    height: int | None = None
    width: int | None = None
    images: int
    quarantined: int
    shards: list[int]
    bytes: int
    ignored: list[dict[str, str]]
    ignored_count: int


def read_meta(folder: Path) -> Meta:
    return Meta.model_validate_json((folder / META_FILE).read_bytes())
