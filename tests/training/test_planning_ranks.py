"""Several ranks on the cores of one slot: measured before a training, started by the plan, kept by a resume."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.training.running import ROOT, Run
from tests.training.test_planning import LONG, prepared_run
from tests.unit.planner_cases import probed, timing
from tests.waiting import eventually
from training_core.planner.plan import choose_plan
from training_core.planner.table import ProbeTable, Timing
from training_core.runtime import planning
from training_core.runtime.planning import plan_compute, torch_version

BATCH = 16
# All that is measured of one process; what is missing is measured with ranks.
ALONE = [
    timing("fp32", 0.046, batch=BATCH),
    timing("fp32", 0.047, batch=BATCH, memory_format="contiguous"),
    timing("bf16", 0.048, batch=BATCH),
    timing("bf16", 0.049, batch=BATCH, memory_format="contiguous"),
    timing("fp32", 0.050, batch=BATCH, threads=1),
    timing("fp32", 0.025, batch=BATCH // 2),
]
TWO_CORES = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")


@TWO_CORES
def test_a_slot_with_two_cores_is_measured_with_two_ranks(tmp_path: Path, images: Path) -> None:
    long = {**LONG, "batch_size": BATCH, "image_size": 64}
    run = measured_before(prepared_run(tmp_path, images, training=long, threads=2), ALONE)
    train(run)
    [report] = run.of_kind("probed")
    together = [one for one in ProbeTable.model_validate(report.table).timings if one.ranks == 2]
    assert {(one.batch, one.threads) for one in together} == {(BATCH // 2, 1)}
    assert {one.memory_format for one in together} == {"channels_last", "contiguous"}
    assert all(0 < one.seconds < 5 for one in together)
    [plan] = run.of_kind("plan_chosen")
    assert "on 2 ranks with 1 thread each" in plan.reasons["compute.strategy"]


def train(run: Run) -> None:
    """To its end, or for a few steps of a long training."""
    command = [sys.executable, "-m", "training_core.runtime.launch", "--stage", "train", str(run.dir.path)]
    with run.dir.log.open("ab") as log, subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log) as process:
        try:
            if run.spec.spec.training.epochs == LONG["epochs"]:
                eventually(lambda: "first_step" in run.kinds() or process.poll() is not None, 90)
                run.dir.request_stop()
            assert process.wait(90) == 0, run.log()
        finally:
            process.kill()


def measured_before(run: Run, timings: list[Timing]) -> Run:
    """Its cache holds a table with them."""
    plan = choose_plan(run.spec.spec, planning.data_facts(run.dir.read_prepared()), device="cpu")
    host = planning.look_at_host(run.spec)
    table = probed(plan, host, *timings, torch=torch_version(), image_seconds=1e-5)
    path = table_of(run, table.key)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(table.model_dump_json())
    return run


def table_of(run: Run, key: str) -> Path:
    return run.spec.cache_dir / planning.PROBE_FOLDER / f"{key}.json"


def ready(folder: Path, images: Path, **changes: Any) -> Run:
    return prepared_run(folder, images, training={"epochs": 2, "batch_size": BATCH}, threads=2, **changes)


@TWO_CORES
def test_two_ranks_train_in_one_slot_and_a_resume_keeps_them(tmp_path: Path, images: Path) -> None:
    ranks = timing("fp32", 0.030, batch=BATCH // 2, threads=1, ranks=2)
    first = measured_before(ready(tmp_path, images), [*ALONE, ranks])
    train(first)
    assert first.outcome.result == "completed"
    [plan] = first.of_kind("plan_chosen")
    assert (plan.world_size, plan.resolved["compute.strategy"]) == (2, "ddp")
    assert plan.prediction["device_hours"] == plan.prediction["hours"], "one slot is what it holds"
    account = first.of_kind("efficiency")[-1].account
    assert account["world_size"] == 2
    before = first.dir.read_plan()
    second = ready(tmp_path, images, attempt=2, resume_from=first.last_checkpoint().path)
    measured_before(second, ALONE)
    assert plan_compute(second.dir) == before
    third = measured_before(ready(tmp_path, images, attempt=3), ALONE)
    assert plan_compute(third.dir).ranks == 1, "nothing else knows of two"
