"""Trains what a run dir asks for: `python -m training_core.train RUN_DIR`.

Alone it prepares the data and trains as the only rank. Under torchrun it is one rank of many, and the first of each
host prepares.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from training_core.contract.outcome import outcome_of
from training_core.contract.redaction import print_error
from training_core.contract.run_dir import RunDir
from training_core.processes.heap import keep_freed_memory
from training_core.processes.process import RANKS_PARENT_PID, end_with_parent, leave, share_cores
from training_core.runtime.launch import prepare_apart
from training_core.runtime.planning import plan_compute

LOOK_SECONDS = 0.05


def main() -> int:
    planned = RANKS_PARENT_PID in os.environ  # by whoever started torchrun for this run
    end_with_parent(RANKS_PARENT_PID)
    share_cores()
    parser = argparse.ArgumentParser(prog="python -m training_core.train", description=__doc__)
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="a folder with spec.json")
    run_dir = RunDir(parser.parse_args().run_dir.absolute())
    if run_dir.outcome.exists() and "RANK" not in os.environ:
        print(f"{run_dir.path} has ended already ({run_dir.outcome.name} exists); take a new one", file=sys.stderr)  # noqa: T201
        return 2
    first = os.environ.get("LOCAL_RANK", "0") == "0"
    if run_dir.read_spec().device == "cpu":
        keep_freed_memory()
    if not run_dir.prepared.exists():
        code = prepare_apart(run_dir) if first else wait_for(run_dir.prepared, run_dir)
        if not run_dir.prepared.exists():
            return code
    if first and not planned:
        code = plan_for_ranks(run_dir, int(os.environ.get("WORLD_SIZE", "1")))
    else:
        code = wait_for(run_dir.plan, run_dir)
    if not run_dir.plan.exists():
        return code
    from training_core.runtime.attempt import Attempt  # noqa: PLC0415  torch costs seconds; a bad dataset needs none

    return Attempt(run_dir).run()


def plan_for_ranks(run_dir: RunDir, ranks: int) -> int:
    """1 without a plan, and then with an outcome that says why."""
    try:
        plan_compute(run_dir, fixed_ranks=ranks)
    except Exception as error:  # noqa: BLE001  whatever it is, the run says how it ended
        print_error(error)
        run_dir.write_outcome(outcome_of(error, phase="preparing", step=0, rank=None))
        return 1
    return 0


def wait_for(path: Path, run_dir: RunDir) -> int:
    """Until the host's first rank has written `path`, or has said why not; torchrun ends us when it died."""
    while not path.exists():
        if (outcome := run_dir.read_outcome()) is not None:
            return 1 if outcome.result == "failed" else 0
        time.sleep(LOOK_SECONDS)
    return 0


if __name__ == "__main__":
    leave(main())
