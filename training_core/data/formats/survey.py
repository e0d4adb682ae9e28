"""One pass over a listing: which kinds of files there are, and where the images lie."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from training_core.contract.errors import Failed, Reason
from training_core.data.listing import Listing
from training_core.data.samples import IMAGE_SUFFIXES

MANIFEST_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
MOST_SHARDS = 1_000_000


@dataclass
class Survey:
    """`folders` counts the images by folder; the other lists are rows of the listing with their paths."""

    folders: Counter[str] = field(default_factory=Counter)
    manifests: list[tuple[int, str]] = field(default_factory=list)
    parquet: list[tuple[int, str]] = field(default_factory=list)
    tars: list[tuple[int, str]] = field(default_factory=list)
    idx: list[tuple[int, str]] = field(default_factory=list)

    @property
    def images(self) -> int:
        return self.folders.total()


def survey(listing: Listing, uri: str) -> Survey:
    """Raises `Failed(dataset_invalid)` for a million shards."""
    found = Survey()
    for row, path in enumerate(listing.paths()):
        folder, _, name = path.rpartition("/")
        if is_hidden(folder, name):
            continue
        lower = name.lower()
        if lower.endswith(IMAGE_SUFFIXES):
            found.folders[folder] += 1
            continue
        if lower.endswith(MANIFEST_SUFFIXES):
            (found.parquet if lower.endswith(".parquet") else found.manifests).append((row, path))
        elif lower.endswith(".tar"):
            found.tars.append((row, path))
        elif is_idx(lower):
            found.idx.append((row, path))
        if max(len(found.manifests), len(found.parquet), len(found.tars), len(found.idx)) > MOST_SHARDS:
            raise Failed(Reason.DATASET_INVALID, f"{uri} has more than a million shards", "make larger shards")
    return found


def is_hidden(folder: str, name: str) -> bool:
    """What tools leave behind: `.DS_Store`, `.ipynb_checkpoints/` (else a class of its own), `__MACOSX/`."""
    if name.startswith(".") or name == "Thumbs.db" or folder.startswith("__MACOSX"):
        return True
    dotted = folder.startswith(".") or "/." in folder
    return dotted and any(part.startswith(".") and part != ".." for part in folder.split("/"))


def is_idx(name: str) -> bool:
    plain = name.removesuffix(".gz")
    return plain.endswith("-ubyte") or plain.endswith((".idx", ".idx1", ".idx3", ".idx4"))
