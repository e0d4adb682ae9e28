"""The ranks of one host, started by torchrun itself: `compute.start: torchrun`.

This process becomes torchrun's agent, as `python -m torch.distributed.run` would. What the ranks wrote says how the run
ended: torchrun's exit code is the same for a clean end on request, an ignored one and a killed rank.
"""

from __future__ import annotations

import os
import signal

from torch.distributed import run as torch_run
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from training_core.contract.errors import Reason
from training_core.contract.outcome import Outcome
from training_core.contract.run_dir import RunDir
from training_core.processes.process import RANKS_PARENT_PID


def run_ranks(run_dir: RunDir, count: int) -> int:
    """The exit code: 0 completed or stopped, 1 failed, with an outcome in each case."""
    os.environ[RANKS_PARENT_PID] = str(os.getpid())
    started = ["--standalone", f"--nproc-per-node={count}", "-m", "training_core.train", str(run_dir.path)]
    try:
        torch_run.main(started)
    except ChildFailedError as failed:
        # Who was killed did not end because of the others.
        rank, failure = min(failed.failures.items(), key=lambda one: one[1].exitcode)
        run_dir.write_outcome(_outcome_of(rank, failure.exitcode))
        return 1
    return 0


def _outcome_of(rank: int, exit_code: int) -> Outcome:
    """For a rank that died without a word; if any rank had one, that stays."""
    how = f"was killed by {signal.Signals(-exit_code).name}" if exit_code < 0 else f"ended with {exit_code}"
    message = f"rank {rank} {how}"
    return Outcome(result="failed", reason=Reason.PROCESS_DIED, phase="running", message=message, rank=rank)
