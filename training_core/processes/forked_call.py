"""Work in a forked child that may die alone: what it says arrives line by line, until it ends or time is up.

The process that starts ranks must hold no thread, device or filesystem object; whatever needs one happens here.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Callable

from training_core.contract.redaction import print_error
from training_core.processes.process import die_with, threads

Say = Callable[[str], None]
READ_BYTES = 1 << 16


def lines_from_child(work: Callable[[Say], None], seconds: float) -> list[str]:
    """What `work` said within `seconds`; then its process is killed. An error of `work` is printed and ends it.

    Nothing runs beside a thread: a fork would take the locks that it holds, and not the thread.
    """
    if len(threads()) != 1:
        return []
    parent = os.getpid()
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        os.close(reading)
        os._exit(_carry_out(work, writing, parent))
    os.close(writing)
    try:
        content = _read(reading, time.monotonic() + seconds)
    finally:
        os.close(reading)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    # A line without its end was cut off.
    return content.decode().split("\n")[:-1]


def _carry_out(work: Callable[[Say], None], writing: int, parent: int) -> int:
    die_with(parent)
    try:
        work(lambda line: _write(writing, f"{line}\n".encode()))
    except BaseException as error:  # noqa: BLE001  this process ends here, whatever it is
        print_error(error)
        sys.stderr.flush()
        return 1
    return 0


def _write(file: int, content: bytes) -> None:
    while content:
        content = content[os.write(file, content) :]


def _read(file: int, deadline: float) -> bytes:
    content, poll = b"", select.poll()
    poll.register(file, select.POLLIN)
    while (left := deadline - time.monotonic()) > 0 and poll.poll(left * 1000):
        if not (more := os.read(file, READ_BYTES)):
            break
        content += more
    return content
