"""Names of splits, in folders, columns and names of shards."""

from __future__ import annotations

import re
from collections.abc import Iterable

from training_core.data.samples import SPLITS

UNSPLIT = -1
SPLIT_NAMES = {
    "train": 0,
    "training": 0,
    "val": 1,
    "valid": 1,
    "validation": 1,
    "dev": 1,
    "test": 2,
    "testing": 2,
}
WORDS = re.compile(r"[a-z]+")
ALLOWED = ", ".join(SPLITS)


def split_of(name: str) -> int | None:
    """The split that a folder or a cell names, or None."""
    return SPLIT_NAMES.get(name.strip().lower())


def split_in(path: str) -> int:
    """The split named by a word of a shard's name, else by its nearest folder that is one; -1 without."""
    *folders, name = path.lower().split("/")
    found = {SPLIT_NAMES[word] for word in WORDS.findall(name) if word in SPLIT_NAMES}
    if len(found) == 1:
        return found.pop()
    for folder in reversed(folders):
        if folder in SPLIT_NAMES:
            return SPLIT_NAMES[folder]
    return UNSPLIT


def together(splits: Iterable[int]) -> bool:
    """Whether splits were given for all or for none: a part alone would be a guess."""
    return len({split == UNSPLIT for split in splits}) < 2
