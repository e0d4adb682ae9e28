"""What archives have in common: they lie in another source, and members are ranges of them."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from training_core.contract.errors import Failed, Reason
from training_core.data.sources.source import Entry, Piece, Source, stamp_of
from training_core.data.sources.spool import Spool


class Container:
    """`inner` is the folder within the archive that stands for the dataset; names below it are relative to it."""

    def __init__(self, uri: str, source: Source, archive: Entry, inner: str, scratch: Path) -> None:
        self.uri, self._source, self._archive = uri, source, archive
        self._prefix = f"{inner}/" if inner else ""
        self._spool = Spool(scratch)

    def beside(self) -> Source | None:
        return None

    def identity(self) -> str | None:
        return None

    def _relative(self, name: str) -> str | None:
        """None for a member outside the folder."""
        return name.removeprefix(self._prefix) if name.startswith(self._prefix) else None

    def _span(self, start: int, length: int) -> Piece:
        """Bytes of the archive, cut at its end."""
        return Piece(self._archive, start, max(0, min(length, self._archive.size - start)))

    def _open_archive(self) -> BinaryIO:
        return self._source.open(self._archive)

    def _broken(self, what: str) -> Failed:
        return Failed(
            Reason.DATASET_INVALID, f"{self.uri} is not a readable {what}", "check that the upload is complete"
        )


def member_stamp(archive: Entry, checksum: int) -> int:
    """Of a member without a checksum: it changes with the whole archive."""
    return checksum or stamp_of(f"{archive.size} {archive.stamp}")
