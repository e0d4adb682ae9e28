"""Uploaded datasets and the parts that they come in."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from api.schemas.part import Answer, Instant


class DatasetAnswer(Answer):
    """`id` is what a spec takes as `dataset.uri` once `state` is `ready`."""

    id: str
    object: Literal["dataset"] = "dataset"
    name: str
    state: str = Field(description="uploading or ready")
    size_bytes: int | None = Field(description="of all files; null until it is ready")
    files: int | None = Field(description="how many; an archive is one")
    sha256: str | None = Field(
        description="of the one file; of many, of the lines that sha256sum prints, sorted by the bytes of their paths"
    )
    created_at: Instant
    ready_at: Instant | None
    expires_at: Instant | None = Field(description="when it is deleted unless something more arrives")
    urls: dict[str, str]


class PartAnswer(Answer):
    number: int
    object: Literal["part"] = "part"
    size_bytes: int
    sha256: str
    stored_at: Instant
