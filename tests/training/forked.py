"""Runs in the order of their dirs, each in a process forked from one that has imported all.

`python -m tests.training.forked RUN_DIR…` prints the exit codes as JSON.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path

from training_core.contract.run_dir import RunDir
from training_core.processes.process import share_cores
from training_core.runtime.launch import launch
from training_core.runtime.launcher import PRELOADED


def run_in_child(path: Path) -> int:
    child = os.fork()
    if child == 0:
        os._exit(launch(RunDir(path)))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    share_cores()
    for name in PRELOADED:
        if name.startswith("training_core."):
            importlib.import_module(name)
    sys.stdout.write(json.dumps([run_in_child(Path(path)) for path in sys.argv[1:]]))
