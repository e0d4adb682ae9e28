"""What a worker asks of the warm launcher. Torch-free.

    worker                                      launcher
      order, with one end of a new socket  ->   forks a child
                                                child (its parent is the worker now): its process id  <-
      GO                                   ->   child begins a session of its own, then RUNNING       <-

A worker that waited too long closes the socket, and the child ends without having done anything.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

Stage = Literal["prepare", "train"]

READY = b"ready"
GO = b"go"
RUNNING = b"running"
ORDER_BYTES = 1 << 20


class Order(BaseModel):
    """Carry out a stage of `run_dir` as a child of `parent_pid`, with `environment` and nothing else."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run_dir: Path
    stage: Stage
    environment: dict[str, str]
    parent_pid: int
