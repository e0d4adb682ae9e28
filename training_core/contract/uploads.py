"""What the control plane and the training agree on about uploaded datasets: ids, where they lie, what they are.

Below the store: `uploads/<id>/data/…` are the files, and `uploads/<id>/files.jsonl` lists them, sorted by the bytes of
their paths, one JSON object a line: `path`, `size`, `sha256`. An upload never changes once it is ready. Its place is
that of its one file where that is an archive, a table or a list, else its folder, which ends in a slash.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

FOLDER, DATA, LISTING, PARTS = "uploads", "data", "files.jsonl", "parts"
_ID = re.compile(r"dataset_[0-9A-HJKMNP-TV-Z]{26}")
_PLACE = re.compile(rf"{FOLDER}/{_ID.pattern}/{DATA}/([^/]*)")

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2")
TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")


class UploadedFile(BaseModel):
    """A line of the listing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    size: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


def is_upload(link: str) -> bool:
    """Whether one link of a dataset's URI is the id of an upload."""
    return _ID.fullmatch(link) is not None


def upload_of(uri: str) -> str | None:
    """The id of the upload that a dataset's URI names, as it is or in a container (`zip://train::dataset_…`)."""
    last = uri.rsplit("::", 1)[-1]
    return last if is_upload(last) else None


def folder_of(dataset_id: str) -> str:
    return f"{FOLDER}/{dataset_id}"


def place_of(dataset_id: str, files: Sequence[UploadedFile]) -> str:
    """Below the store: the one file that is a dataset by itself, or the folder of all, with a slash at its end."""
    folder = f"{folder_of(dataset_id)}/{DATA}/"
    alone = len(files) == 1 and "/" not in files[0].path and stands_alone(files[0].path)
    return folder + files[0].path if alone else folder


def split_place(place: str) -> tuple[str, str] | None:
    """The upload's own folder, and the name of its one file or nothing; None for what is no place of an upload."""
    found = _PLACE.fullmatch(place)
    return None if found is None else (place.rsplit("/", 2)[0], found[1])


def stands_alone(name: str) -> bool:
    """Whether a file of that name is a dataset by itself."""
    return name.lower().endswith(ARCHIVES + TABLES)


def whole_sha256(files: Sequence[UploadedFile]) -> str:
    """Of one file its own; of many, that of what `sha256sum` prints of them, sorted by the bytes of their paths."""
    if len(files) == 1:
        return files[0].sha256
    lines = sorted((one.path.encode(), one.sha256) for one in files)
    return hashlib.sha256(b"".join(digest.encode() + b"  " + path + b"\n" for path, digest in lines)).hexdigest()
