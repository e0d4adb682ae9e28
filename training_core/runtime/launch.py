"""Carries out an attempt on this host: `python -m training_core.runtime.launch RUN_DIR`, or one of its two stages.

`prepare` reads the data and ends with `prepared.json`, or with an outcome; it needs no device. `train` finds the data
there: one device trains in this process, several are ranks forked from it. The worker asks for the stages one by one
and lends devices to the second alone.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import get_args

from training_core.contract.credentials import Credentials
from training_core.contract.errors import Failed, is_out_of_memory
from training_core.contract.outcome import Outcome, outcome_of
from training_core.contract.redaction import print_error
from training_core.contract.run_dir import EventsFile, Prepared, RunDir, RunSpec
from training_core.contract.spec.conflicts import check_together
from training_core.data.bombs import too_much_memory
from training_core.engine.teacher import check_teacher, find_teacher
from training_core.processes.heap import keep_freed_memory
from training_core.processes.hiding import NICENESS, handed_over, hiding
from training_core.processes.memory_limit import limited_memory, preparation_bytes
from training_core.processes.process import die_with, end_with_parent, leave, share_cores, yield_to_others
from training_core.runtime.launcher_protocol import Stage
from training_core.runtime.planning import plan_compute
from training_core.tasks.image_classification.origin import check_origin, fetch_weights


def main() -> int:
    end_with_parent()
    share_cores()
    parser = argparse.ArgumentParser(prog="python -m training_core.runtime.launch", description=__doc__)
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="a folder with spec.json")
    parser.add_argument("--stage", choices=get_args(Stage), help="only this stage; both without it")
    arguments = parser.parse_args()
    run_dir = RunDir(arguments.run_dir.absolute())
    return STAGES[arguments.stage](run_dir) if arguments.stage else launch(run_dir)


def launch(run_dir: RunDir) -> int:
    """Both stages."""
    code = prepare_apart(run_dir)
    return train(run_dir) if run_dir.prepared.exists() else code


def prepare_apart(run_dir: RunDir) -> int:
    """Prepare in a process of its own: ranks cannot be forked beside the threads that a preparation leaves behind."""
    process = multiprocessing.get_context("fork").Process(target=_prepare_and_exit, args=(run_dir, os.getpid()))
    process.start()
    process.join()
    return abs(process.exitcode or 0)


def _prepare_and_exit(run_dir: RunDir, parent_pid: int) -> None:
    die_with(parent_pid)
    sys.exit(prepare(run_dir))


def prepare(run_dir: RunDir) -> int:
    """The exit code; `prepared.json` is there when there is something to train."""
    from training_core.vision.prepare import prepare as prepare_data  # noqa: PLC0415  not in a process that will fork

    credentials: Credentials | None = None
    try:
        credentials = handed_over()
        run = run_dir.read_spec().model_copy(update={"secret": credentials})
        # Closed before rank 0 opens it: there are never two writers.
        with EventsFile(run_dir.events) as events:
            run = run.model_copy(update={"private_dirs": [*run.private_dirs, run_dir.path]})
            check_together(run.spec)
            check_origin(run)
            find_teacher(run)
            with limited_memory(preparation_bytes(run.preparation_memory_bytes)):
                prepared = prepare_data(run, Wishes(run_dir).stop_requested, events.append)
            prepared = prepared.model_copy(update={"weights": fetch_weights(run, prepared.folder)})
            _check_weights(run, prepared)
            check_teacher(run, prepared.folder)
        if run.work == "check":
            run_dir.write_outcome(Outcome(result="completed", phase="preparing"))
        else:
            run_dir.write_prepared(prepared)
    except Exception as error:  # noqa: BLE001  whatever it is, the run says how it ended
        print_error(error)
        outcome = outcome_of(_explained(error), phase="preparing", step=0, rank=None)
        run_dir.write_outcome(hiding(outcome, credentials))
        return 0 if outcome.result == "stopped" else 1
    return 0


def _explained(error: Exception) -> Exception:
    """Memory that is short while the data is prepared has nothing to do with a batch."""
    if isinstance(error, Failed) or not is_out_of_memory(error):
        return error
    return too_much_memory("the dataset takes more memory than a preparation has")


def _check_weights(run: RunSpec, prepared: Prepared) -> None:
    """Whether given weights fit the network and the data. Costs torch where there are some."""
    if run.spec.model.pretrained or run.spec.model.weights is not None:
        from training_core.tasks.image_classification import transfer  # noqa: PLC0415

        transfer.check_fit(run, prepared.folder, prepared.weights)


class Wishes:
    """What a preparation asks for again and again, once it has more to do than to find what is there already."""

    def __init__(self, run_dir: RunDir) -> None:
        self._run_dir = run_dir
        self._yields = False

    def stop_requested(self) -> bool:
        """Looks for the stop file. Shows that the preparation goes on, and lets trainings go first from now on.

        The time of the events file is its sign of life: it may have nothing to report for an hour and is not stalled.
        """
        if not self._yields:
            self._yields = True
            yield_to_others(NICENESS)
        self._run_dir.events.touch()
        return self._run_dir.stop_requested()


def train(run_dir: RunDir) -> int:
    """The exit code: 0 completed or stopped, 1 failed."""
    run = run_dir.read_spec()
    if run.device == "cpu":
        keep_freed_memory()
    try:
        ranks = plan_compute(run_dir).ranks
    except Exception as error:  # noqa: BLE001  whatever it is, the run says how it ended
        print_error(error)
        run_dir.write_outcome(outcome_of(error, phase="preparing", step=0, rank=None))
        return 1
    if run.spec.compute.start == "torchrun":
        from training_core.runtime import torchrun  # noqa: PLC0415  torch costs seconds; a bad dataset needs none

        return torchrun.run_ranks(run_dir, ranks)
    if ranks > 1:
        from training_core.runtime.ranks import run_ranks  # noqa: PLC0415

        return run_ranks(run_dir, ranks)
    from training_core.runtime.attempt import Attempt  # noqa: PLC0415

    return Attempt(run_dir).run()


STAGES: dict[Stage, Callable[[RunDir], int]] = {"prepare": prepare, "train": train}

if __name__ == "__main__":
    leave(main())
