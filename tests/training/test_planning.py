"""The compute plan of real attempts: probed where it is worth it, remembered, the same again after a resume."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any, get_args

import psutil
import pytest
import torch

from tests.training.running import Run, make_run
from tests.unit.planner_cases import chosen, cpu, plan_of, probed, spec_of, timing
from tests.waiting import eventually
from training_core.contract.run_dir import Prepared
from training_core.contract.spec import ModelName
from training_core.engine.oom_history import remember
from training_core.optimisation.layers import has_batch_norm
from training_core.planner.case import Case
from training_core.planner.facts import HostFacts
from training_core.planner.table import ProbeTable, Timing, key_of
from training_core.planner.workload import workload_of
from training_core.preflight.probing.kinds import growing, pieces
from training_core.preflight.probing.probes import Probe
from training_core.runtime import launch, planning
from training_core.runtime.planning import in_time, plan_compute, read_table, torch_version
from training_core.vision.networks import make_model

# At eleven steps an epoch, more than a minute by what is published of any CPU.
LONG = {"epochs": 10_000, "batch_size": 4, "early_stopping": None}


def stopped_early(run: Run) -> Run:
    """Trained for a few steps."""
    with run.start() as process:
        eventually(lambda: "first_step" in run.kinds() or process.poll() is not None, 90)
        run.dir.request_stop()
        assert process.wait(60) == 0, run.log()
    return run


def test_a_long_training_is_probed_once_and_the_table_is_shared(tmp_path: Path, images: Path) -> None:
    first = stopped_early(make_run(tmp_path, f"file://{images}", training=LONG, job_id="first"))
    assert first.kinds().index("probed") < first.kinds().index("plan_chosen")
    [report] = first.of_kind("probed")
    [file] = (tmp_path / "cache" / "probes").glob("*.json")
    assert file.stem == report.key
    table = ProbeTable.model_validate_json(file.read_bytes())
    assert ProbeTable.model_validate(report.table) == table
    assert table.torch == torch_version() == torch.__version__.partition("+")[0]
    assert table.timings[0].batch == 4
    [plan] = first.of_kind("plan_chosen")
    assert plan.prediction["basis"] == "probes"
    assert plan.compute["probe_seconds"] < 25
    short = make_run(tmp_path, f"file://{images}", training={"epochs": 1, "batch_size": 4}, job_id="second")
    assert short.finish() == 0, short.log()
    assert not short.of_kind("probed")
    assert short.of_kind("plan_chosen")[0].prediction["basis"] == "probes"


def prepared_run(folder: Path, images: Path, **changes: Any) -> Run:
    """Ready to be planned here."""
    run = make_run(folder, f"file://{images}", **changes)
    assert launch.prepare(run.dir) == 0, run.log()
    return run


def test_a_short_training_is_planned_by_what_is_published_and_says_what_it_takes(tmp_path: Path, images: Path) -> None:
    run = prepared_run(tmp_path, images)
    compute = plan_compute(run.dir)
    assert run.dir.read_plan() == compute
    assert compute.prediction is not None
    assert compute.prediction.basis == "published"
    assert compute.prediction.hours * 3600 < planning.SHORT_RUN_SECONDS
    assert not (tmp_path / "cache" / "probes").exists()


def test_a_broken_table_and_one_of_another_torch_are_not_used(tmp_path: Path) -> None:
    plan, host = plan_of(spec_of("small_cnn"), side=28, device="cpu"), cpu()
    file = tmp_path / "table.json"
    assert read_table(file) is None
    for content in (b"", b"{", b"\xff\xfe", b'{"key": 3}', probed(plan, host, torch="1.0").model_dump_json().encode()):
        file.write_bytes(content)
        assert read_table(file) is None, content
    file.write_text(probed(plan, host, torch=torch_version()).model_dump_json())
    assert read_table(file) is not None


def test_a_training_that_fits_nowhere_ends_before_it_begins(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = prepared_run(tmp_path, images)
    tiny = HostFacts(device="cpu", devices=1, cores=1, memory_bytes=1 << 20)
    monkeypatch.setattr(planning, "look_at_host", lambda _: tiny)
    assert launch.train(run.dir) == 1
    assert run.outcome.reason == "out_of_memory"
    assert "small_cnn needs" in (run.outcome.message or "")
    assert "compute.profile" in (run.outcome.hint or "")


def test_too_short_a_time_takes_epochs_or_is_told(tmp_path: Path, images: Path) -> None:
    automatic = spec_of("small_cnn", 64, epochs="auto")
    host = cpu()
    plan = plan_of(automatic, side=28, device="cpu")
    compute = chosen(automatic, host, 28)
    assert compute.prediction is not None
    seconds = compute.prediction.hours * 3600
    run = make_run(tmp_path, f"file://{images}").spec
    free = run.model_copy(update={"spec": automatic})
    assert in_time(compute, free, plan, step=0) == compute
    assert in_time(compute, free.model_copy(update={"train_seconds": 2 * seconds}), plan, step=0) == compute
    half = free.model_copy(update={"train_seconds": seconds / 2})
    shorter = in_time(compute, half, plan, step=0)
    assert shorter.epochs is not None
    assert 1 <= shorter.epochs < plan.epochs
    assert shorter.prediction is not None
    assert shorter.prediction.hours * 3600 <= seconds / 2
    assert plan.on(shorter).epochs == shorter.epochs
    pinned = half.model_copy(update={"spec": spec_of("small_cnn", 64, epochs=plan.epochs)})
    [warning] = in_time(compute, pinned, plan, step=0).warnings
    assert warning.startswith("schedule_longer_than_budget: ")
    assert "training.epochs" in warning
    # What has begun keeps its schedule; what is left of it may fit.
    [told] = in_time(compute, half, plan, step=1).warnings
    assert told.startswith("schedule_longer_than_budget: ")
    assert not in_time(compute, half, plan, step=plan.total_steps * 3 // 4).warnings


def test_what_ran_out_of_memory_before_begins_with_smaller_pieces(tmp_path: Path, images: Path) -> None:
    run = prepared_run(tmp_path, images)
    facts = planning.data_facts(run.dir.read_prepared())
    assert (facts.train_images, facts.classes, facts.channels) == (45, 3, 1)
    plan = plan_of(run.spec.spec, side=16, images=facts.train_images, channels=1, device="cpu")
    plan = planning.choose_plan(run.spec.spec, facts, device="cpu")
    remember(tmp_path / "cache", key_of(plan, planning.look_at_host(run.spec)), "fp32", ran_out=12, micro_batch_size=6)
    compute = plan_compute(run.dir)
    assert compute.micro_batch_size == 6
    assert "ran out of memory" in compute.reasons["compute.micro_batch_size"]


def test_a_resume_on_like_devices_is_computed_as_before_and_elsewhere_planned_anew(
    tmp_path: Path, images: Path
) -> None:
    first = make_run(tmp_path, f"file://{images}", training={"epochs": 2})
    assert first.finish() == 0, first.log()
    path = first.last_checkpoint().path
    before = first.dir.read_plan()
    second = prepared_run(tmp_path, images, training={"epochs": 2}, attempt=2, resume_from=path)
    again = plan_compute(second.dir)
    assert again == before
    assert again.host.startswith("1 cpu ")
    more = prepared_run(tmp_path, images, training={"epochs": 2}, attempt=3, resume_from=path, threads=0)
    other = plan_compute(more.dir)
    assert (other.host == before.host) == (len(os.sched_getaffinity(0)) == 1)
    fixed = plan_compute(second.dir, fixed_ranks=2)
    assert fixed.ranks == 2


def test_torchrun_starts_the_ranks_on_request_and_none_outlives_it(tmp_path: Path, images: Path) -> None:
    compute = {"start": "torchrun", "strategy": "ddp"}
    run = make_run(tmp_path, f"file://{images}", training={"epochs": 5000}, compute=compute, devices=2)
    with run.start() as process:
        eventually(lambda: "first_step" in run.kinds() or process.poll() is not None, 120)
        ranks = [
            one
            for one in psutil.Process(process.pid).children(recursive=True)
            if "training_core.train" in one.cmdline()
        ]
        assert len(ranks) == 2, run.log()
        assert run.of_kind("plan_chosen")[0].world_size == 2
        run.dir.request_stop()
        assert process.wait(60) == 0, run.log()
    assert run.outcome.result == "stopped"
    eventually(lambda: not any(rank.is_running() for rank in ranks))


@pytest.mark.long
def test_ranks_of_torchrun_die_with_it_and_a_killed_one_is_named(tmp_path: Path, images: Path) -> None:
    compute = {"start": "torchrun", "strategy": "ddp"}
    for number, victim in enumerate(("agent", "rank")):
        changes = {"training": {"epochs": 5000}, "compute": compute, "devices": 2, "job_id": f"job-{number}"}
        run = make_run(tmp_path, f"file://{images}", **changes)
        with run.start() as process:
            eventually(lambda run=run: "first_step" in run.kinds(), 120)
            ranks = [
                one
                for one in psutil.Process(process.pid).children(recursive=True)
                if "training_core.train" in one.cmdline()
            ]
            os.kill(process.pid if victim == "agent" else ranks[1].pid, signal.SIGKILL)
            code = process.wait(60)
        eventually(lambda ranks=ranks: not any(rank.is_running() for rank in ranks))
        if victim == "rank":
            assert code == 1
            assert run.outcome.reason == "process_died", run.log()
            assert "SIGKILL" in (run.outcome.message or "")


def test_a_probe_measures_what_is_missing_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = ("fp32", "channels_last", 2, 1)
    monkeypatch.setattr(Probe, "_take", lambda _, one: 1e-3 * one.batch * (1 if one.kind == usual else 2))
    spec = spec_of("small_cnn", 32)
    plan, host = plan_of(spec, side=16, channels=1, device="cpu"), cpu(cores=2, cpu_features=["avx2", "avx512_bf16"])
    told: list[ProbeTable] = []
    Probe(Case(spec.compute, plan, host), 30, told.append).run(None)
    table = told[-1]
    kinds = {(one.precision, one.memory_format, one.threads, one.batch) for one in table.alone}
    assert {("fp32", "channels_last", 2, 32), ("fp32", "contiguous", 2, 32), ("bf16", "channels_last", 2, 32)} <= kinds
    assert any(threads == 1 for _, _, threads, _ in kinds)
    assert any(batch == 16 for *_, batch in kinds)
    again: list[ProbeTable] = []
    Probe(Case(spec.compute, plan, host, table), 30, again.append).run(None)
    assert not again
    smaller = table.model_copy(update={"timings": table.timings[:1]})
    Probe(Case(spec.compute, plan, host, smaller), 30, again.append).run(None)
    assert {one.kind for one in again[-1].timings} == {one.kind for one in table.timings}


def test_a_step_of_a_probe_is_a_real_one() -> None:
    spec = spec_of("small_cnn", 32)
    plan, host = plan_of(spec, side=16, channels=1, device="cpu"), cpu(cores=1)
    told: list[ProbeTable] = []
    Probe(Case(spec.compute, plan, host), 0.1, told.append).run(None)
    assert all(one.seconds > 0 for one in told[-1].timings)
    assert ("fp32", "channels_last", 1, 1) in {one.kind for one in told[-1].timings}
    assert told[-1].probe_seconds > 0


def test_a_kind_that_is_much_slower_is_given_up_after_one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    spec, taken = spec_of("resnet18", 8, {"memory_format": "channels_last"}), []
    plan, host = plan_of(spec, side=32, device="cpu"), cpu(cores=1, cpu_features=["avx512_bf16"])

    def take(_: Probe, one: Timing) -> float:
        taken.append(one.precision)
        return 16.0 if one.precision == "bf16" else 1.0

    monkeypatch.setattr(Probe, "_take", take)
    told: list[ProbeTable] = []
    Probe(Case(spec.compute, plan, host), 30, told.append).run(None)
    assert taken.count("bf16") == 1
    [half] = [one for one in told[-1].timings if one.precision == "bf16"]
    assert (half.seconds, half.whole) == (16.0, False)


def test_sizes_of_a_probe() -> None:
    assert growing(256) == [16, 64, 256]
    assert growing(8) == [8]
    assert pieces(128) == [64, 32, 16]
    assert pieces(12) == []


def test_the_data_path_is_measured_in_the_probe(tmp_path: Path, images: Path) -> None:
    run = prepared_run(tmp_path, images)
    spec = spec_of("small_cnn", 12)
    plan, host = plan_of(spec, side=16, channels=1, device="cpu"), cpu(cores=1)
    full = probed(plan, host, *[timing("fp32", 0.01, batch=12, threads=1, memory_format=one) for one in FORMATS])
    told: list[ProbeTable] = []
    prepared: Prepared = run.dir.read_prepared()
    Probe(Case(spec.compute, plan, host, full), 30, told.append).run(prepared)
    assert told[-1].image_seconds is not None
    assert 0 < told[-1].image_seconds < 0.01


FORMATS = ("channels_last", "contiguous")


@pytest.mark.parametrize("name", [name for name in get_args(ModelName) if name != "auto"])
def test_what_the_planner_knows_of_a_network_is_true(name: str) -> None:
    work = workload_of(plan_of(spec_of(name, 8), side=64, device="cpu"))
    model = make_model(name, channels=3, classes=10)
    assert work.parameters == sum(one.numel() for one in model.parameters())
    assert work.batch_norm == has_batch_norm(model)
    assert work.gradient_bytes == 4 * work.parameters
    assert work.flops > 0


def test_counts_are_those_of_the_networks_as_they_are() -> None:
    from benchmarks.engine.model_facts import FILE, flops, kept_bytes
    from training_core.planner.network_table import NETWORKS

    assert FILE.exists()
    model = make_model("small_cnn", channels=3, classes=10)
    for side in (32, 64):
        counted = NETWORKS["small_cnn"].at[side]
        assert (flops(model, side), kept_bytes(model, side)) == (counted.flops, counted.kept_bytes)


def test_a_table_says_itself_in_json_and_is_the_same_again() -> None:
    plan, host = plan_of(spec_of("small_cnn"), side=28, device="cpu"), cpu()
    table = probed(plan, host, timing("fp32", 0.5), image_seconds=1e-5)
    assert ProbeTable.model_validate(json.loads(table.model_dump_json())) == table


def test_ranks_that_will_talk_are_heard_first(tmp_path: Path, images: Path) -> None:
    run = make_run(tmp_path, f"file://{images}", training={**LONG, "batch_size": 2}, devices=2)
    stopped_early(run)
    [report] = run.of_kind("probed")
    [link] = ProbeTable.model_validate(report.table).all_reduce
    assert link.ranks == 2
    assert 0 < link.seconds < 5
    [plan] = run.of_kind("plan_chosen")
    assert plan.world_size == 2
    assert plan.prediction["communication_seconds"] >= 0
