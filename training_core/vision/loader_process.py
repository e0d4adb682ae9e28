"""The other end of `process_crew.py`: `python -m training_core.vision.loader_process DESCRIPTOR`."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
import traceback
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle

from training_core.processes.process import end_with_parent, share_cores
from training_core.vision.pack import Pack
from training_core.vision.process_pool import map_memory
from training_core.vision.worker_pool import Images, ThreadCrew


@dataclass
class Mapped:
    memory: Images


def main() -> int:
    end_with_parent()
    share_cores()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started us decides
    connection = Connection(int(sys.argv[1]))
    folder, recipes, threads, most_threads = connection.recv()
    crew = ThreadCrew(Pack(folder), recipes, threads=threads, most_threads=most_threads)
    try:
        serve(connection, crew)
    finally:
        crew.close()
    return 0


def serve(connection: Connection, crew: ThreadCrew) -> None:
    """Until the other end is gone."""
    slots: dict[int, Mapped] = {}
    lock = threading.Lock()
    while True:
        try:
            word, *values = connection.recv()
        except EOFError:
            return
        match word, values:
            case "slot", [key, size]:
                descriptor = recv_handle(connection)
                slots[key] = Mapped(map_memory(descriptor, size))
                os.close(descriptor)
            case "free", [key]:
                del slots[key]
            case "fill", [ticket, key, part, recipe]:
                crew.fill(slots[key], part, recipe).add_done_callback(partial(_answer, connection, lock, ticket))
            case "grow", []:
                crew.grow()


def _answer(connection: Connection, lock: threading.Lock, ticket: int, filled: Future[None]) -> None:
    error = filled.exception()
    with lock:
        try:
            connection.send((ticket, error and _portable(error)))
        except (BrokenPipeError, ConnectionResetError):
            return  # nobody waits any more; the loop that reads sees the end too


def _portable(error: BaseException) -> BaseException:
    """The error, or its words where it does not survive the journey."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301  our own bytes
    except Exception:  # noqa: BLE001  whatever an error class does when it is pickled
        return RuntimeError("".join(traceback.format_exception(error)))
    return error


if __name__ == "__main__":
    sys.exit(main())
