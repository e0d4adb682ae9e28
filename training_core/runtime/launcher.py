"""The warm launcher of a host: it has imported all that a run needs, and forks a process for every order.

The worker starts `python -m training_core.runtime.launcher FD` with a socket as file FD. Nothing ever happens in the
launcher itself: it holds no thread, no tensor, no device and no filesystem object, so that its children start as clean
as a new interpreter would, only seconds earlier.
"""

from __future__ import annotations

import gc
import importlib
import os
import select
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import suppress

from training_core.contract.run_dir import RunDir
from training_core.processes.handover import DESCRIPTOR
from training_core.processes.huge_pages import gather_pages
from training_core.processes.process import die_with, end_with_parent, leave, share_cores, threads
from training_core.processes.title import set_title
from training_core.runtime import launch
from training_core.runtime.launcher_protocol import ORDER_BYTES, READY, RUNNING, Go, Order
from training_core.runtime.planning import torch_version

PRELOADED = (
    "training_core.runtime.attempt", "training_core.runtime.planning", "training_core.preflight.probing.probes",
    "training_core.vision.prepare", "training_core.runtime.ranks", "s3fs", "torchvision.models",
    "torchvision.transforms.v2", "PIL.BmpImagePlugin",
    "PIL.GifImagePlugin", "PIL.JpegImagePlugin", "PIL.PngImagePlugin", "PIL.TiffImagePlugin", "PIL.WebPImagePlugin",
    "numpy.ma", "numpy.ctypeslib",
)  # fmt: skip
ADOPTION_SECONDS = 2.0


def main() -> int:
    end_with_parent()
    share_cores()
    control = socket.socket(fileno=int(sys.argv[1]))
    for name in PRELOADED:
        importlib.import_module(name)
    torch_version()  # 3 ms, remembered
    refuse_threads()
    gc.collect()
    gc.freeze()  # a collection in a child would copy every page that holds an object
    control.send(READY)
    begun = serve(control)
    if begun is not None:
        # The interpreter's own end takes 0.2 s here, over a second on a busy host, and would only free memory: the
        # training waits for it after the preparation, and the next job after the training.
        leave(carry_out(*begun))
    return 0


def refuse_threads() -> None:
    """Raises `RuntimeError`: a fork takes one thread along, and whatever lock another one held stays locked."""
    if len(names := threads()) != 1:
        raise RuntimeError(f"the launcher must not hold threads, and it holds {', '.join(sorted(names))}")


def serve(control: socket.socket) -> tuple[Order, Go] | None:
    """Fork for every order. Returns that order in the child, and None in the launcher when the worker has gone."""
    pages = gather_pages()
    while True:
        gather_while_idle(control, pages)
        message, descriptors, _, _ = socket.recv_fds(control, ORDER_BYTES, 1)
        if not message:
            return None
        with socket.socket(fileno=descriptors[0]) as line:
            if _fork_away():
                control.close()
                order = Order.model_validate_json(message)
                return order, _begin(order, line)


def gather_while_idle(control: socket.socket, pages: Iterator[bool]) -> None:
    """Make forks cheaper until there is an order, or no more to gain."""
    while not select.select([control], [], [], 0)[0]:
        if next(pages, None) is None:
            return


def _fork_away() -> bool:
    """True in the new process, whose parent is the worker as soon as the process between them has ended."""
    between = os.fork()
    if between == 0:
        code = 1
        with suppress(OSError):
            if os.fork() == 0:
                return True
            code = 0
        os._exit(code)
    os.waitpid(between, 0)
    return False


def _begin(order: Order, line: socket.socket) -> Go:
    """Return as a child of the worker that the worker knows of, once it has a slot for us, or end."""
    deadline = time.monotonic() + ADOPTION_SECONDS
    while os.getppid() != order.parent_pid:
        if time.monotonic() > deadline:
            os._exit(1)
        time.sleep(0.0002)
    die_with(order.parent_pid)
    try:
        os.setsid()  # another launcher may have replaced ours by the time we begin
        line.send(str(os.getpid()).encode())
        message, descriptors, _, _ = socket.recv_fds(line, ORDER_BYTES, 1)
        if not message:
            os._exit(0)  # the worker does without us
        line.send(RUNNING)
    except OSError:
        os._exit(1)
    go = Go.model_validate_json(message)
    secret = {DESCRIPTOR: str(descriptors[0])} if descriptors else {}
    return go.model_copy(update={"environment": go.environment | secret})


def carry_out(order: Order, go: Go) -> int:
    """Be the process that was ordered; returns its exit code."""
    os.environ.clear()
    os.environ.update(go.environment)
    share_cores()
    time.tzset()
    run_dir = RunDir(order.run_dir)
    _redirect(run_dir)
    set_title(f"trainyard {order.stage} {run_dir.path}")
    return launch.STAGES[order.stage](run_dir)


def _redirect(run_dir: RunDir) -> None:
    """Standard input is empty; output and errors go into the log."""
    log = os.open(run_dir.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
    nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
        os.close(source) if source != log else None
    os.close(log)


if __name__ == "__main__":
    sys.exit(main())
