"""What a worker asks of the warm launcher. Torch-free.

    worker                                      launcher
      Order, with one end of a new socket  ->   forks a child
                                                child, whose parent is the worker now: its process id  <-
      Go, with the end of a pipe that holds
        the secret of its data, if it needs one -> child: RUNNING                                         <-

Between the two the child is at hand: it waits, for as long as the worker has no slot for it, and takes no device. A
worker that needs it no more closes the socket, and the child ends without having done anything.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

Stage = Literal["prepare", "train"]

READY = b"ready"
RUNNING = b"running"
ORDER_BYTES = 1 << 20


class Order(BaseModel):
    """Be ready to carry out a stage of `run_dir` as a child of `parent_pid`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run_dir: Path
    stage: Stage
    parent_pid: int


class Go(BaseModel):
    """Carry it out now, with `environment` and nothing else; a secret comes beside it (`handover`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    environment: dict[str, str]
