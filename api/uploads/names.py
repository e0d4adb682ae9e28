"""Names of uploaded files: relative paths that mean the same to every file system, bucket and reader."""

from __future__ import annotations

import unicodedata

LONGEST_PATH_BYTES, LONGEST_PART_BYTES, DEEPEST = 800, 200, 32


class BadName(Exception):
    """A name under which no file is stored; the message completes "the name of file 3 …"."""


def checked(name: str) -> str:
    """`name` itself. Raises `BadName` for one that leaves its folder, or that a reader could take for another."""
    parts = name.split("/")
    if "\\" in name or name.startswith("/") or (len(parts[0]) > 1 and parts[0][1] == ":"):
        raise BadName("must be a relative path with forward slashes")
    if any(part in ("", ".", "..") for part in parts):
        raise BadName("has an empty part, `.` or `..`")
    if any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in name):
        raise BadName("has control characters, or is not UTF-8")
    if any(part != part.strip() for part in parts):
        raise BadName("has a part that begins or ends with white space")
    if len(parts) > DEEPEST:
        raise BadName(f"is deeper than {DEEPEST} folders")
    if len(name.encode()) > LONGEST_PATH_BYTES or any(len(part.encode()) > LONGEST_PART_BYTES for part in parts):
        raise BadName(f"is longer than {LONGEST_PART_BYTES} bytes, or its path than {LONGEST_PATH_BYTES}")
    return name


class Names:
    """Those of one upload: no two of them are the same file, and none is a folder of another."""

    def __init__(self) -> None:
        self._files, self._folders = set[str](), set[str]()

    def add(self, name: str) -> None:
        """Raises `BadName`. Two spellings of the same letters (NFC and NFD) are the same name to people."""
        name = unicodedata.normalize("NFC", checked(name))
        if name in self._files:
            raise BadName("is that of an earlier file")
        if name in self._folders:
            raise BadName("is that of a folder of an earlier file")
        above = name.split("/")[:-1]
        folders = {"/".join(above[: depth + 1]) for depth in range(len(above))}
        if not folders.isdisjoint(self._files):
            raise BadName("takes an earlier file for a folder")
        self._files.add(name)
        self._folders |= folders
