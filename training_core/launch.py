"""Starts an attempt on this host: `python -m training_core.launch RUN_DIR`. This is what the worker runs.

The data is prepared before any rank exists. One device trains in this process; several are
ranks under torchrun's agent.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
import uuid
from pathlib import Path

from training_core.data.prepare import prepare
from training_core.failure import outcome_of
from training_core.process import end_with_parent, share_cores
from training_core.rundir import EventsFile, Outcome, RunDir, RunSpec
from training_core.wire import Reason

PARENT_PID = "TRAINYARD_PARENT_PID"
SHUTDOWN_SECONDS = 120


def main() -> int:
    end_with_parent(PARENT_PID)
    share_cores()
    parser = argparse.ArgumentParser(prog="python -m training_core.launch", description=__doc__)
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="a folder with spec.json")
    run_dir = RunDir(parser.parse_args().run_dir.absolute())
    start = time.perf_counter()
    try:
        run = run_dir.read_spec()
        prepared, ready = prepare(run, run_dir.stop_requested)
        # Closed before rank 0 opens it: there are never two writers.
        with EventsFile(run_dir.events) as events:
            events.append(ready)
    except Exception as error:  # noqa: BLE001  whatever it is, the run says how it ended
        traceback.print_exception(error)
        outcome = outcome_of(error, phase="preparing", step=0, rank=None)
        run_dir.write_outcome(outcome)
        return 0 if outcome.result == "stopped" else 1
    seconds = time.perf_counter() - start
    if run.devices == 1:
        from training_core.attempt import Attempt  # noqa: PLC0415  torch costs seconds; a bad dataset needs none

        return Attempt(run_dir, prepared, seconds).run()
    return start_ranks(run_dir, run, prepared, seconds)


def start_ranks(run_dir: RunDir, run: RunSpec, prepared: Path, prepare_seconds: float) -> int:
    """Run the ranks to their end; a rank that died without a word gets one from us."""
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError  # noqa: PLC0415
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch  # noqa: PLC0415

    from training_core import train  # noqa: PLC0415

    os.environ |= {
        train.LAUNCHER_PID: str(os.getpid()),
        train.PREPARED: str(prepared),
        train.PREPARE_SECONDS: str(prepare_seconds),
    }
    # Ranks of one host talk over loopback; a host name that does not resolve must not stop them.
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=run.devices,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="127.0.0.1",
        max_restarts=0,
        monitor_interval=0.1,
        shutdown_timeout=SHUTDOWN_SECONDS,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "training_core.train", str(run_dir.path))
    except ChildFailedError as failed:
        rank, failure = failed.get_first_failure()
        how = f"was killed by {failure.signal_name()}" if failure.exitcode < 0 else f"ended with {failure.exitcode}"
        outcome = Outcome(
            result="failed", reason=Reason.PROCESS_DIED, phase="running", message=f"rank {rank} {how}", rank=rank
        )
        run_dir.write_outcome(outcome)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
