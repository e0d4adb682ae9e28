"""What every place of data can do: list its files as a stream, and read pieces of them ahead of their use."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import BinaryIO, NamedTuple, Protocol, runtime_checkable

from training_core.data.samples import Unreadable

LARGEST_FILE_BYTES = 64 * 2**20
UNKNOWN_SIZE = -1
CHANGED = Unreadable("it changed since it was listed")
VANISHED = Unreadable("it vanished since it was listed")
TOO_LARGE = Unreadable("it is larger than 64 MiB")


class Entry(NamedTuple):
    """A file: its path below the source with `/`, its bytes, and a number that tells another content of the same size.

    A place that names its files by their content (DVC) may not know their size: UNKNOWN_SIZE; they are read whole.
    Archives add where it lies in them: the first byte of its `stored` bytes.
    """

    path: str
    size: int
    stamp: int
    offset: int = 0
    stored: int = -1


class Piece(NamedTuple):
    """`length` bytes of a file from `start` on; -1 stands for the whole file."""

    entry: Entry
    start: int = 0
    length: int = -1

    @property
    def bytes(self) -> int:
        return self.entry.size if self.length < 0 else self.length


class Source(Protocol):
    """Its connections belong to the process that opened it."""

    uri: str

    def entries(self) -> Iterator[Entry]:
        """All files, in an order that depends on nothing but them."""
        ...

    def read(self, pieces: Iterable[Piece]) -> Iterator[bytes | Unreadable]:
        """The content of each piece in turn, fetched ahead within bounds.

        Raises `Failed` when the source itself fails after its retries.
        """
        ...

    def beside(self) -> Source | None:
        """For a source of one file, the folder that it lies in; else None."""
        ...

    def identity(self) -> str | None:
        """What a listing of this source can be kept under, where making it is slow; it changes with the content."""
        ...

    def open(self, entry: Entry) -> BinaryIO:
        """A file to seek in. Raises `Failed` when it cannot be read."""
        ...


@runtime_checkable
class Finds(Protocol):
    """A source in which asking for single files is quicker than listing all, or all there is."""

    def find(self, paths: Iterable[str]) -> Iterator[Entry | None]:
        """Each path's entry, None where there is no such file."""
        ...


def stamp_of(text: str) -> int:
    """64 bits of an ETag, a checksum or a time of change."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")
