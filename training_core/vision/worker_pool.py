"""Threads that fill batches. They decode and resize outside of Python's lock, one core each."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from training_core.data.sampler import Part
from training_core.vision.pack import Pack
from training_core.vision.transforms import Recipe, Renderer

Images = NDArray[np.uint8]

# Images that one thread makes at a time: few, so that the first batch is there soon, and enough to share what numpy
# does for all of them under the interpreter's lock.
IMAGES_A_TASK = 32


class Slot(Protocol):
    """Memory for one batch, owned by the crew that made it."""

    memory: Images


class Crew(Protocol):
    """Fills slots. `recipe` is the number of one of the recipes that the crew was made for."""

    @property
    def threads(self) -> int:
        """That fill now; `grow` adds one until there are `most_threads`."""
        ...

    @property
    def most_threads(self) -> int: ...

    def slot(self, size: int) -> Slot:
        """Memory of `size` bytes."""
        ...

    def free(self, slot: Slot) -> None:
        """The slot is not used any more."""
        ...

    def fill(self, slot: Slot, part: Part, recipe: int) -> Future[None]:
        """Pictures of `part` into the first bytes of the slot; errors of the making surface in the future."""
        ...

    def grow(self) -> bool:
        """One thread more, unless that is too many."""
        ...

    def close(self) -> None:
        """Ends all threads and processes. Nothing is filled any more."""
        ...


class Memory:
    """Ordinary memory, pinned where a GPU copies from it."""

    def __init__(self, size: int, *, pin: bool) -> None:
        self.memory: Images = torch.empty(size, dtype=torch.uint8, pin_memory=pin).numpy()


class ThreadCrew:
    """Threads of this process. Starts with `threads` of them and grows to `most_threads`."""

    def __init__(
        self, pack: Pack, recipes: list[Recipe], *, threads: int = 1, most_threads: int = 1, pin: bool = False
    ) -> None:
        self._renderers = [Renderer(pack, recipe) for recipe in recipes]
        self._channels, self._pin = pack.channels, pin
        self._tasks: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._most_threads = max(threads, most_threads)
        for _ in range(threads):
            self._start()
        # A thread that is inside of torch when the interpreter ends takes the process down with SIGABRT.
        atexit.register(self.close)

    @property
    def threads(self) -> int:
        return len(self._threads)

    @property
    def most_threads(self) -> int:
        return self._most_threads

    def _start(self) -> None:
        ready = threading.Event()
        thread = threading.Thread(target=self._work, args=(ready,), name=f"batches-{len(self._threads)}", daemon=True)
        # Torch's number of threads is kept by each thread, and the last number set is what new threads take.
        mine = torch.get_num_threads()
        thread.start()
        ready.wait()
        torch.set_num_threads(mine)
        self._threads.append(thread)

    def _work(self, ready: threading.Event) -> None:
        torch.set_num_threads(1)
        ready.set()
        while (task := self._tasks.get()) is not None:
            task()

    def slot(self, size: int) -> Memory:
        return Memory(size, pin=self._pin)

    def free(self, slot: Slot) -> None:
        """Its memory goes with it."""

    def fill(self, slot: Slot, part: Part, recipe: int) -> Future[None]:
        renderer = self._renderers[recipe]
        images = images_in(slot.memory, part, self._channels)
        size = len(part.draws) if renderer.together(part.shape) else IMAGES_A_TASK
        starts = range(0, len(part.draws), max(1, size))
        filled = Filled(len(starts))
        for start in starts:
            piece = slice(start, start + size)
            self._tasks.put(filled.task(renderer, part.draws[piece], part.epoch, images[piece]))
        return filled.future

    def grow(self) -> bool:
        if len(self._threads) >= self._most_threads:
            return False
        self._start()
        return True

    def close(self) -> None:
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join()
        self._threads.clear()
        atexit.unregister(self.close)


class Filled:
    """One future for the pieces of a batch: done with the last of them, or with the first error."""

    def __init__(self, pieces: int) -> None:
        self.future: Future[None] = Future()
        self.future.set_running_or_notify_cancel()
        self._left, self._lock = pieces, threading.Lock()
        self._error: BaseException | None = None
        if pieces == 0:
            self.future.set_result(None)

    def task(self, work: Callable[..., None], *arguments: Any) -> Callable[[], None]:
        def run() -> None:
            error = None
            try:
                work(*arguments)
            except BaseException as problem:  # noqa: BLE001  whoever waits for the batch raises it
                error = problem
            self._done(error)

        return run

    def _done(self, error: BaseException | None) -> None:
        with self._lock:
            self._left -= 1
            self._error = self._error or error
            if self._left:
                return
        # Only when no thread writes any more may the memory be used again.
        if self._error is None:
            self.future.set_result(None)
        else:
            self.future.set_exception(self._error)


def images_in(memory: Images, part: Part, channels: int) -> Images:
    """`(batch, height, width, channels)`, a view of the memory's first bytes."""
    shape = (len(part.draws), *part.shape, channels)
    return memory[: size_of(part, channels)].reshape(shape)


def size_of(part: Part, channels: int) -> int:
    return len(part.draws) * part.shape[0] * part.shape[1] * channels
