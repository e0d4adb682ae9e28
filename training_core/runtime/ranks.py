"""The ranks of one host, forked from this process with torchrun's environment: RANK, WORLD_SIZE, MASTER_ADDR and so on.

The store through which they find each other is served here, as by torchrun's agent, on a socket that is bound before
any rank is told its port: nobody can take it in between. A rank that dies takes the others down.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import time
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess

from torch import distributed

from training_core.contract.errors import Reason
from training_core.contract.outcome import Outcome
from training_core.contract.run_dir import RunDir
from training_core.processes.process import die_with, share_cores, threads
from training_core.processes.title import set_title
from training_core.runtime.attempt import Attempt

LOOPBACK = "127.0.0.1"
LAST_WORDS_SECONDS = 5.0  # for ranks that lost another one and know it


def run_ranks(run_dir: RunDir, count: int) -> int:
    """Run the ranks to their end; one that died without a word gets one from us."""
    # A thread that is here already would be missing in a fork, and the locks it holds would not.
    alone = len(threads()) == 1
    new = multiprocessing.get_context("fork").Process if alone else multiprocessing.get_context("spawn").Process
    with socket.create_server((LOOPBACK, 0), backlog=count) as listener:
        variables = _variables(listener.getsockname()[1], count)
        ranks: list[BaseProcess] = []
        try:
            for rank in range(count):
                mine = {**variables, "RANK": str(rank), "LOCAL_RANK": str(rank)}
                ranks.append(new(target=_rank, args=(run_dir, mine, os.getpid())))
                ranks[-1].start()
            # Only now: it has a thread.
            store = _serve_store(listener)
            failed = _watch(ranks)
            del store
        finally:
            _end(ranks)
    if failed is None:
        return 0
    run_dir.write_outcome(_outcome_of(ranks.index(failed), failed.exitcode or 0))
    return 1


def _serve_store(listener: socket.socket) -> object:
    return distributed.TCPStore(  # type: ignore[attr-defined]
        LOOPBACK,
        listener.getsockname()[1],
        is_master=True,
        wait_for_workers=False,
        master_listen_fd=os.dup(listener.fileno()),  # it closes what it is given
    )


def _variables(port: int, count: int) -> dict[str, str]:
    return {
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "GROUP_RANK": "0",
        "MASTER_ADDR": LOOPBACK,
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        # Ranks of one host talk over loopback; a host name that does not resolve must not stop them.
        "GLOO_SOCKET_IFNAME": os.environ.get("GLOO_SOCKET_IFNAME", "lo"),
    }


def _rank(run_dir: RunDir, variables: dict[str, str], parent_pid: int) -> None:
    die_with(parent_pid)
    share_cores()
    os.environ |= variables
    set_title(f"trainyard rank {variables['RANK']} {run_dir.path}")
    sys.exit(Attempt(run_dir).run())


def _watch(ranks: list[BaseProcess]) -> BaseProcess | None:
    """Wait for all of them, or for the first that failed and, for a while, for the words of the others."""
    running = list(ranks)
    while running:
        wait([rank.sentinel for rank in running])
        ended = [rank for rank in running if rank.exitcode is not None]
        running = [rank for rank in running if rank not in ended]
        failed = [rank for rank in ended if rank.exitcode != 0]
        if failed:
            _join(running, LAST_WORDS_SECONDS)
            # Those that ended at the same moment: who was killed did not end because of the others.
            return min(failed, key=lambda rank: rank.exitcode or 0)
    return None


def _join(ranks: list[BaseProcess], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    for rank in ranks:
        rank.join(max(0.0, deadline - time.monotonic()))


def _end(ranks: list[BaseProcess]) -> None:
    for rank in ranks:
        if rank.pid is not None:
            rank.kill()
            rank.join()


def _outcome_of(rank: int, exit_code: int) -> Outcome:
    how = f"was killed by {signal.Signals(-exit_code).name}" if exit_code < 0 else f"ended with {exit_code}"
    message = f"rank {rank} {how}"
    return Outcome(result="failed", reason=Reason.PROCESS_DIED, phase="running", message=message, rank=rank)
