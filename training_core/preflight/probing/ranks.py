"""Ranks of this host that take steps of a training together, each when it is told to: forked first, measured later."""

from __future__ import annotations

import math
import multiprocessing
import os
import tempfile
import time
from multiprocessing.connection import Connection, wait
from pathlib import Path

import torch
from torch import distributed

from training_core.distributed.gradient_sync import CAREFUL_STEPS
from training_core.distributed.ranks import Ranks
from training_core.planner.plan import Plan
from training_core.planner.table import Timing
from training_core.preflight.probing.step import ProbeStep
from training_core.processes.process import die_with

CPU = torch.device("cpu")
WARM_UP_IMAGES = 2  # the least that a batch norm takes


class Company:
    """So many ranks, which wait until they are asked for a step.

    Forks: make it before this process has threads or a device. A rank that is lost or late ends all of them.
    """

    def __init__(self, plan: Plan, count: int) -> None:
        context = multiprocessing.get_context("fork")
        self._folder = tempfile.TemporaryDirectory()
        store = Path(self._folder.name) / "store"
        self._lines, self._ranks = [], []
        for rank in range(count):
            mine, theirs = context.Pipe()
            arguments = (Ranks(rank, count, CPU), plan, theirs, store, os.getpid())
            self._ranks.append(context.Process(target=_rank, args=arguments))
            self._ranks[-1].start()
            theirs.close()
            self._lines.append(mine)

    def take(self, kind: Timing, seconds: float) -> float:
        """Seconds of a step of the slowest rank; infinity when there is none within `seconds`, and from then on."""
        deadline = time.monotonic() + seconds
        try:
            for line in self._lines:
                line.send(kind)
            return max((_received(line, deadline) for line in self._lines), default=math.inf)
        except (EOFError, TimeoutError, BrokenPipeError):
            self.end()
            return math.inf

    def end(self) -> None:
        for rank in self._ranks:
            rank.kill()
            rank.join()
        self._folder.cleanup()
        self._lines, self._ranks = [], []


def _received(line: Connection, deadline: float) -> float:
    if not wait([line], max(0.0, deadline - time.monotonic())):
        raise TimeoutError
    return float(line.recv())


def _rank(ranks: Ranks, plan: Plan, line: Connection, store: Path, parent: int) -> None:
    die_with(parent)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    steps: dict[tuple[str, str], ProbeStep] = {}
    while True:
        kind: Timing = line.recv()
        if not steps:
            distributed.init_process_group(
                "gloo", init_method=f"file://{store}", rank=ranks.rank, world_size=ranks.world_size
            )
        place = (kind.precision, kind.memory_format)
        if place not in steps:
            steps[place] = ProbeStep(plan, kind, CPU, ranks)
            for _ in range(CAREFUL_STEPS):
                steps[place].take(WARM_UP_IMAGES, kind.threads)
        line.send(steps[place].take(kind.batch, kind.threads))
