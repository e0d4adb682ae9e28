"""Trains what a run dir asks for: `python -m training_core.train RUN_DIR`.

Alone it prepares the data and trains as the only rank. Under torchrun it is one rank of many.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from training_core.process import end_with_parent, share_cores
from training_core.rundir import RunDir

LAUNCHER_PID = "TRAINYARD_LAUNCHER_PID"
PREPARED = "TRAINYARD_PREPARED"
PREPARE_SECONDS = "TRAINYARD_PREPARE_SECONDS"


def main() -> int:
    end_with_parent(LAUNCHER_PID)
    share_cores()
    from training_core.attempt import Attempt  # noqa: PLC0415  after the line above: OpenMP reads its settings once

    parser = argparse.ArgumentParser(prog="python -m training_core.train", description=__doc__)
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="a folder with spec.json")
    run_dir = RunDir(parser.parse_args().run_dir)
    if run_dir.outcome.exists() and "RANK" not in os.environ:
        print(f"{run_dir.path} has ended already ({run_dir.outcome.name} exists); take a new one", file=sys.stderr)  # noqa: T201
        return 2
    prepared = os.environ.get(PREPARED)
    seconds = float(os.environ.get(PREPARE_SECONDS, "0"))
    return Attempt(run_dir, Path(prepared) if prepared else None, seconds).run()


if __name__ == "__main__":
    sys.exit(main())
