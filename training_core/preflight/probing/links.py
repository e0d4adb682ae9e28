"""How long ranks of this host take to average gradients: a few all-reduces between processes forked for it."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path

import torch
from torch import distributed

from training_core.processes.process import die_with

ROUNDS = 4  # and one before them, in which connections are made


@dataclass(frozen=True)
class Meeting:
    """Where so many ranks meet, and what they average there."""

    ranks: int
    size_bytes: int
    device: str
    store: Path
    parent: int


def all_reduce_seconds(ranks: int, size_bytes: int, device: str, seconds: float) -> float | None:
    """The fastest of a few, as the slowest rank saw it; None when that takes longer than `seconds`, or fails.

    Forks: call it before this process has threads or a device.
    """
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        meeting = Meeting(ranks, size_bytes, device, Path(folder) / "store", os.getpid())
        lines, processes = [], []
        for rank in range(ranks):
            mine, theirs = context.Pipe(duplex=False)
            processes.append(context.Process(target=_rank, args=(rank, meeting, theirs)))
            processes[-1].start()
            theirs.close()
            lines.append(mine)
        try:
            times = [_received(line, time.monotonic() + seconds) for line in lines]
        finally:
            for process in processes:
                process.kill()
                process.join()
    known = [one for one in times if one is not None]
    return max(known) if len(known) == ranks else None


def _received(line: Connection, deadline: float) -> float | None:
    """None from a rank that is late or has ended without a word."""
    if not wait([line], max(0.0, deadline - time.monotonic())):
        return None
    try:
        return float(line.recv())
    except EOFError:
        return None


def _rank(rank: int, meeting: Meeting, line: Connection) -> None:
    die_with(meeting.parent)
    torch.set_num_threads(1)
    place = torch.device("cuda", rank) if meeting.device == "cuda" else torch.device("cpu")
    if place.type == "cuda":
        torch.cuda.set_device(place)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    backend = "nccl" if place.type == "cuda" else "gloo"
    distributed.init_process_group(backend, init_method=f"file://{meeting.store}", rank=rank, world_size=meeting.ranks)
    gradients, fastest = torch.ones(max(1, meeting.size_bytes // 4), device=place), float("inf")
    for number in range(ROUNDS + 1):
        start = time.perf_counter()
        distributed.all_reduce(gradients)
        if place.type == "cuda":
            torch.cuda.synchronize(place)
        if number:
            fastest = min(fastest, time.perf_counter() - start)
    line.send(fastest)
    distributed.destroy_process_group()
