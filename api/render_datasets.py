"""Uploaded datasets and their parts as the answers of the API."""

from __future__ import annotations

from api import schemas
from api.book.models import Dataset, DatasetPart
from api.links import link


def dataset(row: Dataset) -> schemas.DatasetAnswer:
    place = f"/v1/datasets/{row.id}"
    parts = ("parts", "complete") if row.state == "uploading" and row.form == "parts" else ()
    names = ("files",) if row.state == "ready" else parts
    return schemas.DatasetAnswer(
        id=row.id,
        name=row.name,
        state=row.state,
        size_bytes=row.size_bytes,
        files=row.files,
        sha256=row.sha256,
        created_at=row.created_at,
        ready_at=row.ready_at,
        expires_at=row.expires_at,
        urls={"self": link(place), **{name: link(f"{place}/{name}") for name in names}},
    )


def part(row: DatasetPart) -> schemas.PartAnswer:
    return schemas.PartAnswer(
        number=row.number, size_bytes=row.size_bytes, sha256=row.sha256, stored_at=row.stored_at
    )  # fmt: skip
