"""One process of N threads that fills batches in shared memory: Python's lock stays with the loop that feeds the GPU.

Threads beside a training loop halved its steps a second where the GPU is fast; the same threads in one process did not
(SPDL's measurements), and one process needs no copy of the dataset for each worker.
"""

from __future__ import annotations

import itertools
import mmap
import os
import socket
import subprocess
import sys
import threading
from concurrent.futures import Future
from multiprocessing.connection import Connection
from multiprocessing.reduction import send_handle
from pathlib import Path

import numpy as np
import torch

import training_core
from training_core.contract.errors import Failed, Reason
from training_core.data.sampler import Part
from training_core.processes.process import PARENT_PID
from training_core.vision.pack import Pack
from training_core.vision.transforms import Recipe
from training_core.vision.worker_pool import Images, Slot


class SharedMemory:
    """Memory without a name in any file system: it is gone with the two processes, and needs no /dev/shm."""

    def __init__(self, key: int, size: int, *, pin: bool) -> None:
        self.key = key
        self.descriptor = os.memfd_create("batch")
        os.ftruncate(self.descriptor, size)
        self.memory = map_memory(self.descriptor, size)
        self._pinned = pin
        if pin:
            _checked(torch.cuda.cudart().cudaHostRegister(self.memory.ctypes.data, size, 0))  # type: ignore[no-untyped-call]

    def close(self) -> None:
        if self._pinned:
            _checked(torch.cuda.cudart().cudaHostUnregister(self.memory.ctypes.data))  # type: ignore[no-untyped-call]
            self._pinned = False
        os.close(self.descriptor)


def map_memory(descriptor: int, size: int) -> Images:
    return np.frombuffer(mmap.mmap(descriptor, size), np.uint8)


def _environment() -> dict[str, str]:
    """Finds this package wherever we were started, sees no device, and ends with us."""
    paths = [str(Path(training_core.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        "CUDA_VISIBLE_DEVICES": "",
        PARENT_PID: str(os.getpid()),
    }


def _checked(error: object) -> None:
    if int(error) != 0:  # type: ignore[call-overload]
        raise RuntimeError(f"CUDA does not pin the memory of the loader: error {error}")


class ProcessCrew:
    """A crew whose threads are in another process. Raises `Failed(process_died)` through its futures when that ends."""

    def __init__(
        self, pack: Pack, recipes: list[Recipe], *, threads: int, most_threads: int = 1, pin: bool = False
    ) -> None:
        self._pin = pin
        self._keys, self._tickets = itertools.count(), itertools.count()
        self._slots: dict[int, SharedMemory] = {}
        self._filling: dict[int, Future[None]] = {}
        self._lock = threading.Lock()
        self._threads, self._most_threads = threads, max(threads, most_threads)
        mine, theirs = socket.socketpair()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "training_core.vision.loader_process", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            env=_environment(),
        )
        theirs.close()
        self._connection = Connection(mine.detach())
        self._connection.send((pack.folder, recipes, threads, self._most_threads))
        self._listener = threading.Thread(target=self._listen, name="loader-process", daemon=True)
        self._listener.start()

    @property
    def threads(self) -> int:
        return self._threads

    @property
    def most_threads(self) -> int:
        return self._most_threads

    @property
    def process_id(self) -> int:
        return self._process.pid

    def slot(self, size: int) -> SharedMemory:
        slot = SharedMemory(next(self._keys), size, pin=self._pin)
        self._slots[slot.key] = slot
        with self._lock:
            self._send("slot", slot.key, size, descriptor=slot.descriptor)
        return slot

    def free(self, slot: Slot) -> None:
        assert isinstance(slot, SharedMemory)  # noqa: S101
        del self._slots[slot.key]
        with self._lock:
            self._send("free", slot.key)
        slot.close()

    def fill(self, slot: Slot, part: Part, recipe: int) -> Future[None]:
        assert isinstance(slot, SharedMemory)  # noqa: S101
        filled: Future[None] = Future()
        filled.set_running_or_notify_cancel()
        ticket = next(self._tickets)
        with self._lock:
            self._filling[ticket] = filled
            self._send("fill", ticket, slot.key, part, recipe)
        return filled

    def grow(self) -> bool:
        if self._threads >= self._most_threads:
            return False
        self._threads += 1
        with self._lock:
            self._send("grow")
        return True

    def _send(self, *message: object, descriptor: int | None = None) -> None:
        """Under the lock. Whoever waits for a batch learns when the process is gone."""
        try:
            self._connection.send(message)
            if descriptor is not None:
                send_handle(self._connection, descriptor, self._process.pid)
        except (BrokenPipeError, ConnectionResetError):
            self._lose()

    def _listen(self) -> None:
        while True:
            try:
                ticket, error = self._connection.recv()
            except (EOFError, ConnectionResetError):
                with self._lock:
                    self._lose()
                return
            with self._lock:
                filled = self._filling.pop(ticket)
            if error is None:
                filled.set_result(None)
            else:
                filled.set_exception(error)

    def _lose(self) -> None:
        """Every batch that is waited for will not come."""
        for filled in self._filling.values():
            filled.set_exception(Failed(Reason.PROCESS_DIED, "the loader process is gone", "see log.txt"))
        self._filling.clear()

    def close(self) -> None:
        """Killed: it holds nothing but memory of batches that nobody will look at."""
        self._process.kill()
        self._process.wait()
        self._listener.join()
        self._connection.close()
        for slot in self._slots.values():
            slot.close()
        self._slots.clear()
