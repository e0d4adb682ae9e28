"""What a file may unpack to, and what becomes of one that takes more memory than a preparation has.

Everything is asked for its size before it is read. Where a header lies, the kernel's limit is what holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from training_core.contract.errors import Failed, Reason, is_out_of_memory

# Images do not shrink further, and text shrinks some ten times; nothing that a person made does so two hundred times.
# Nothing but zeros shrinks a thousand times, which is the most that deflate can do.
MOST_TIMES = 200
# Small files may unpack to this much: it does no harm, and a table of few values is small for a good reason.
HARMLESS_BYTES = 64 * 2**20
# A row of a table or a label is some bytes long, however it is encoded; more rows than bytes are made up.
HARMLESS_ROWS = 65_536
# Paths end at 4,096 bytes on Linux, and no class has a longer name.
LONGEST_CELL = 4096
MEMORY_HINT = (
    "check that it is what its name says; a worker's preparation_memory_bytes says how much a preparation may take"
)


def check_unpacked(what: str, packed_bytes: int, unpacked_bytes: int) -> None:
    """Raises `Failed(dataset_invalid)` for a bomb."""
    if unpacked_bytes > max(HARMLESS_BYTES, MOST_TIMES * packed_bytes):
        raise _bomb(
            f"{what} unpacks to {unpacked_bytes:,} bytes or more, over {MOST_TIMES} times the {packed_bytes:,} that "
            "are stored"
        )


def check_rows(what: str, stored_bytes: int, rows: int) -> None:
    """Raises `Failed(dataset_invalid)` for a table of more rows than it can hold."""
    if rows > HARMLESS_ROWS + stored_bytes:
        raise _bomb(f"{what} says that it holds {rows:,} rows, more than the {stored_bytes:,} bytes that it is long")


def check_cell(where: str, column: str, value: object) -> None:
    """Raises `Failed(dataset_invalid)` for what is too long for a path, a label or a number."""
    if isinstance(value, str) and len(value) > LONGEST_CELL:
        what = f"holds {len(value):,} characters in {column!r}"
        raise Failed(Reason.DATASET_INVALID, f"{where} {what}", f"{LONGEST_CELL:,} are the most")


@contextmanager
def being_read(path: str) -> Iterator[None]:
    """Whoever runs out of memory meanwhile did so because of this file: `Failed(out_of_memory)` that names it."""
    try:
        yield
    except Exception as problem:
        if isinstance(problem, Failed) or not is_out_of_memory(problem):
            raise
        raise too_much_memory(f"{path} takes more memory than a preparation has") from problem


def too_much_memory(words: str) -> Failed:
    return Failed(Reason.OUT_OF_MEMORY, words, MEMORY_HINT)


def _bomb(words: str) -> Failed:
    return Failed(Reason.DATASET_INVALID, words, "check that it is what its name says, and make it again")
