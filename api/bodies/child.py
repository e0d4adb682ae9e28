"""The process that reads large bodies: `python -m api.bodies.child`. It ends with the one that started it."""

from __future__ import annotations

import os
import pickle
import sys
from typing import Any, BinaryIO

from api.bodies.reading import Refused, read

LENGTH_BYTES = 4


def main() -> None:
    """Answer on stdout what is asked on stdin, one thing at a time; both in pickles of our own making."""
    os.nice(10)  # whoever sends large bodies waits for those who do not
    asked, answers = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr
    while (question := _receive(asked)) is not None:
        answer: Any
        try:
            answer = read(*pickle.loads(question))  # noqa: S301  by the process that started this one
        except Refused as refused:
            answer = refused
        answers.write(framed(pickle.dumps(answer)))
        answers.flush()


def framed(content: bytes) -> bytes:
    return len(content).to_bytes(LENGTH_BYTES, "big") + content


def _receive(source: BinaryIO) -> bytes | None:
    length = source.read(LENGTH_BYTES)
    return source.read(int.from_bytes(length, "big")) if len(length) == LENGTH_BYTES else None


if __name__ == "__main__":
    main()
