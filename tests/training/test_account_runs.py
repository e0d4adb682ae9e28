"""The efficiency account of real trainings: it adds up, it changes nothing, and it comes whatever the end is."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.engine.faults import CASES, SLEEP_SECONDS, Case, run_case
from tests.training.running import ROOT, Run, make_run
from training_core.contract.compute_plan import ComputePlan, Prediction
from training_core.contract.reports import Claimed
from training_core.contract.run_dir import EventsFile
from training_core.efficiency import stall
from training_core.efficiency.model import Account
from training_core.engine import accounting, loop, progress, synthetic_bound
from training_core.runtime.attempt import Attempt
from training_core.runtime.launch import prepare


@pytest.fixture(autouse=True)
def _threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def train(run: Run, plan: ComputePlan | None = None) -> int:
    """In this process."""
    assert prepare(run.dir) == 0
    run.dir.write_plan(plan or ComputePlan())
    return Attempt(run.dir).run()


def final(run: Run) -> Account:
    [last] = [report for report in run.of_kind("efficiency") if report.final]
    assert run.kinds()[-1] == "efficiency"
    return Account.model_validate(last.account)


def check_sum(account: Account) -> None:
    told = sum(part.seconds for part in (*account.phases.values(), *account.steps.values()))
    assert told == pytest.approx(account.wall_seconds, rel=0.01)


def test_five_steps_get_an_account_from_the_claim_to_the_end(tmp_path: Path, images: Path) -> None:
    run = make_run(tmp_path, f"file://{images}", training={"epochs": 1, "batch_size": 8})
    with EventsFile(run.dir.events) as events:
        claimed = time.time() - 3.0
        events.append(Claimed(worker="w", incarnation="i"))
    # The worker's line, with the time of three seconds ago.
    line = json.loads(run.dir.events.read_text())
    run.dir.events.write_text(json.dumps({**line, "at": claimed}) + "\n")
    prediction = Prediction(
        step_seconds=0.5,
        compute_seconds=0.5,
        data_seconds=0.1,
        images_per_second=16,
        memory_bytes=2**28,
        memory_limit_bytes=2**30,
        hours=0.1,
        device_hours=0.1,
        basis="probes",
    )
    assert train(run, ComputePlan(prediction=prediction)) == 0
    ended = time.time()
    account = final(run)
    check_sum(account)
    assert account.phases["waiting"].seconds >= 3.0
    assert account.wall_seconds == pytest.approx(ended - claimed, abs=0.5)
    assert (account.step_count, account.images) == (5, 40)
    for share in ("data_wait", "transfer", "compute", "optimizer", "other"):
        assert account.steps[share].seconds > 0, share
    assert account.steps["communication"].seconds == 0
    assert account.phases["evaluate"].seconds > 0
    assert account.phases["checkpoint"].seconds > 0
    assert account.verdict.kind == "too_short"
    assert account.queue is not None
    assert account.queue.batches == 5
    assert account.memory.of == "process"
    assert account.memory.peak_bytes < account.memory.limit_bytes
    assert account.compared["step_seconds"].predicted == 0.5
    assert account.compared["step_seconds"].measured == account.step_seconds
    assert account.energy.joules is not None or account.energy.missing_because
    assert account.gpu_missing_because


def test_batches_held_back_and_a_trace_change_nothing_that_is_learned(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, training = f"file://{images}", {"epochs": 6}
    plain = make_run(tmp_path / "plain", uri, training=training, data_roots=[tmp_path])
    assert train(plain) == 0
    watched = make_run(tmp_path / "watched", uri, training=training, data_roots=[tmp_path])
    monkeypatch.setattr(synthetic_bound, "SHARE_OF_STEPS", 0.3)
    monkeypatch.setattr(synthetic_bound, "STEPS_BEFORE", 4)
    watched.dir.request_profile()
    assert train(watched) == 0

    assert plain.series("train/loss") == watched.series("train/loss")
    assert plain.series("validation/loss") == watched.series("validation/loss")
    weights = [run.file(f"{run.last_checkpoint().path}/model.safetensors").read_bytes() for run in (plain, watched)]
    assert weights[0] == weights[1]

    assert (final(plain).speed.basis, final(plain).speed.bound_steps) == ("without_waiting", 0)
    speed = final(watched).speed
    assert speed.bound_steps == 5
    assert speed.bound is not None
    assert speed.ratio == pytest.approx(speed.images_per_second / speed.bound, rel=0.01)
    assert speed.ratio <= 1

    assert not watched.dir.profile.exists(), "the request is taken back"
    [artifact] = watched.of_kind("artifact_saved")
    assert (artifact.artifact, artifact.step, artifact.about["steps"]) == ("trace", 2, 3)
    assert artifact.path == "jobs/local/trial-0/attempt-1/traces/step-00000002"
    contents = {name: watched.file(f"{artifact.path}/{name}").read_bytes() for name in artifact.files}
    assert {name: len(content) for name, content in contents.items()} == artifact.files
    assert json.loads(gzip.decompress(contents["trace.json.gz"]))["traceEvents"]
    assert b"conv" in contents["summary.txt"]
    names = [one["name"] for one in artifact.about["top_operators"]]
    assert any("conv" in name for name in names)


def test_a_store_that_takes_no_trace_ends_no_training(tmp_path: Path, images: Path) -> None:
    run = make_run(tmp_path, f"file://{images}", training={"epochs": 2})
    traces = run.file("jobs/local/trial-0/attempt-1/traces")
    traces.parent.mkdir(parents=True)
    traces.write_text("in the way")
    run.dir.request_profile()
    assert train(run) == 0
    assert "trace_lost" in [alert.alert for alert in run.of_kind("alert_raised")]
    assert not run.dir.profile.exists()


def test_a_training_that_fails_has_an_account_too(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = loop.train_step

    def failing_step(training: Any, batch: Any) -> torch.Tensor:
        if training.state.step == 2:
            raise RuntimeError("a bug")
        return step(training, batch)

    monkeypatch.setattr(loop, "train_step", failing_step)
    run = make_run(tmp_path, f"file://{images}")
    assert train(run) == 1
    assert run.outcome.message is not None
    account = final(run)
    check_sum(account)
    assert account.step_count == 2


def test_a_training_that_is_stopped_has_an_account_too(tmp_path: Path, images: Path) -> None:
    run = make_run(tmp_path, f"file://{images}", training={"epochs": 50})
    prepare(run.dir)
    run.dir.write_plan(ComputePlan())
    run.dir.request_stop()
    assert Attempt(run.dir).run() == 0
    assert run.outcome.result == "stopped"
    check_sum(final(run))


def test_a_step_that_stands_still_leaves_its_stack_and_an_alert(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stall, "LEAST_SECONDS", 0.3)
    monkeypatch.setattr(stall, "MEAN_STEPS", 1.0)
    step = loop.train_step

    def stand_still(training: Any, batch: Any) -> torch.Tensor:
        if training.state.step == 4:
            time.sleep(1.0)  # the fault itself
        return step(training, batch)

    monkeypatch.setattr(loop, "train_step", stand_still)
    run = make_run(tmp_path, f"file://{images}")
    assert train(run) == 0
    [alert] = [alert for alert in run.of_kind("alert_raised") if alert.alert == "stalled"]
    assert alert.data["seconds"] >= 1.0
    assert alert.data["step"] == 5
    assert "stand_still" in capfd.readouterr().err, "the stack of the time when it stood"
    account = final(run)
    assert account.stalled_seconds >= 1.0
    assert account.longest_step_seconds >= 1.0


def test_reports_come_while_it_trains(tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "CONSULT_SECONDS", 0.0)
    for name in ("FIRST_REPORT_SECONDS", "REPORT_SECONDS"):
        monkeypatch.setattr(accounting, name, 0.0)
    run = make_run(tmp_path, f"file://{images}", training={"epochs": 3})
    assert train(run) == 0
    reports = run.of_kind("efficiency")
    assert len(reports) >= 3
    assert [report.final for report in reports] == [False] * (len(reports) - 1) + [True]
    assert [report.step for report in reports] == sorted(report.step for report in reports)
    assert run.series("gauge/memory_process_bytes"), "gauges are points of curves"


def test_a_head_on_kept_features_has_an_account_without_a_queue(tmp_path: Path, images: Path, weights: str) -> None:
    model = {"name": "small_cnn", "weights": weights, "trainable": "head"}
    run = make_run(tmp_path, f"file://{images}", model=model)
    assert train(run) == 0, run.log()
    account = final(run)
    check_sum(account)
    assert account.queue is None
    assert account.steps["compute"].seconds > 0


def test_a_rank_that_sleeps_is_found_by_the_others(tmp_path: Path, images: Path) -> None:
    run = make_run(tmp_path, f"file://{images}", training={"epochs": 8}, devices=2)
    assert prepare(run.dir) == 0
    run.dir.write_plan(ComputePlan(strategy="ddp", ranks=2))
    command = [sys.executable, "-m", "benchmarks.engine.faults", "--one", "sleeping_rank", str(run.dir.path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    account = final(run)
    check_sum(account)
    assert account.world_size == 2
    assert account.ranks is not None
    assert account.ranks.slowest == 1
    assert account.ranks.step_seconds[1] > SLEEP_SECONDS
    assert account.step_seconds > SLEEP_SECONDS
    assert account.fraction("communication") > 0, "rank 0 waits for it there"
    assert "straggler" in {account.verdict.kind, *account.verdict.also}


@pytest.mark.long
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_injected_fault_is_named(case: Case, tmp_path: Path) -> None:
    assert run_case(case, tmp_path, quick=False).verdict.kind == case.expected
