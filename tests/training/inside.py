"""Whole trainings in this process: no start-up, and their checkpoints to compare."""

from __future__ import annotations

from tests.training.running import Run
from training_core.contract.compute_plan import ComputePlan
from training_core.runtime.attempt import Attempt
from training_core.runtime.launch import prepare


def train_inside(run: Run) -> int:
    """Prepare, plan one rank of one thread, train; the exit code of the attempt."""
    if (code := prepare(run.dir)) != 0:
        return code
    run.dir.write_plan(ComputePlan(threads=1))
    return Attempt(run.dir).run()
