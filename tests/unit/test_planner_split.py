"""When the cores of a CPU are shared among several ranks: on recorded probe tables, and never without one."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.planner_cases import chosen, cpu, plan_of, probed, spec_of, timing
from training_core.contract.compute_plan import ComputePlan
from training_core.contract.spec import JobSpec
from training_core.planner.case import Case
from training_core.planner.choose import choose_compute
from training_core.planner.split import split_counts
from training_core.planner.table import ProbeTable, Timing

BF16 = ["avx2", "avx512f", "avx512_bf16"]


def recorded() -> list[Timing]:
    """As on two cores, a batch of 32 images of 64 px: a second thread gains nothing, a second rank does."""
    return [
        timing("fp32", 0.046, batch=32),
        timing("fp32", 0.062, batch=32, memory_format="contiguous"),
        timing("fp32", 0.045, batch=32, threads=1),
        timing("fp32", 0.036, batch=16, threads=1, ranks=2),
        timing("fp32", 0.030, batch=16, threads=1, ranks=2, memory_format="contiguous"),
    ]


def planned(
    timings: list[Timing],
    *,
    model: str = "mobilenet_v3_small",
    batch: int = 32,
    fixed_ranks: int | None = None,
    **of: Any,
) -> ComputePlan:
    spec = spec_of(model, batch, of.pop("compute", None))
    host = cpu(**of)
    plan = plan_of(spec, side=64, device="cpu")
    return choose_compute(spec.compute, plan, host, probed(plan, host, *timings), fixed_ranks=fixed_ranks)


@pytest.mark.parametrize("slots", [1, 2])
def test_ranks_that_were_measured_to_be_faster_share_the_cores_of_one_slot_or_two(slots: int) -> None:
    compute = planned(recorded(), devices=slots)
    assert (compute.strategy, compute.ranks, compute.threads) == ("ddp", 2, 1)
    assert (compute.memory_format, compute.precision, compute.micro_batch_size) == ("contiguous", "fp32", 0)
    assert compute.gradient_compression == "none"
    reason = compute.reasons["compute.strategy"]
    assert "30.1 ms on 2 ranks with 1 thread each" in reason
    assert "46.1 ms in one process with 2 threads" in reason
    assert "batch norm sees the 16 images of a rank" in reason
    assert "measured" in compute.reasons["compute.memory_format"]


def test_the_prediction_is_what_was_measured_and_the_job_pays_for_its_slots() -> None:
    compute = planned(recorded(), devices=1)
    prediction = compute.prediction
    assert prediction is not None
    assert prediction.compute_seconds == pytest.approx(0.030)
    assert prediction.images_per_second == pytest.approx(32 / (0.030 + prediction.data_seconds))
    assert 0 <= prediction.communication_seconds < 0.030
    assert prediction.device_hours == prediction.hours
    assert prediction.one_process_seconds == pytest.approx(0.046)
    twice = planned(recorded(), devices=2).prediction
    assert twice is not None
    assert twice.device_hours == pytest.approx(2 * twice.hours)
    alone = planned(recorded()[:3]).prediction
    assert alone is not None
    assert alone.one_process_seconds is None
    assert prediction.memory_bytes > alone.memory_bytes, "each rank has a process and weights of its own"


def test_less_than_a_tenth_is_not_worth_it_and_the_reason_says_what_was_measured() -> None:
    close = timing("fp32", 0.0425, batch=16, threads=1, ranks=2)
    compute = planned([*recorded()[:3], close])
    assert (compute.strategy, compute.ranks, compute.threads) == ("single", 1, 2)
    assert "46.1 ms in one process" in compute.reasons["compute.strategy"]
    assert "42.6 ms on 2 ranks" in compute.reasons["compute.strategy"]


def test_without_a_measurement_nothing_is_split() -> None:
    spec = spec_of("mobilenet_v3_small", 32)
    compute = chosen(spec, cpu(cores=8), 64)
    assert (compute.strategy, compute.ranks, compute.threads) == ("single", 1, 8)
    given_up = [*recorded()[:3], recorded()[4].model_copy(update={"whole": False})]
    assert planned(given_up).ranks == 1


def test_what_was_measured_with_another_batch_does_not_decide() -> None:
    assert planned(recorded(), batch=64).ranks == 1


def test_a_batch_norm_needs_sixteen_images_of_a_rank() -> None:
    few = [one.model_copy(update={"batch": one.batch // 2}) for one in recorded()]
    assert planned(few, batch=16).ranks == 1
    assert planned(few, batch=16, model="small_cnn").ranks == 2
    assert "batch norm" not in planned(few, batch=16, model="small_cnn").reasons["compute.strategy"]


@pytest.mark.parametrize(
    "compute",
    [{"strategy": "single"}, {"micro_batch_size": 16}, {"memory_format": "channels_last", "precision": "bf16"}],
)
def test_what_the_spec_pins_forbids_it(compute: dict[str, Any]) -> None:
    assert planned(recorded(), compute=compute).ranks == 1


def test_ranks_that_somebody_started_and_hosts_are_not_ours_to_choose() -> None:
    assert planned(recorded(), fixed_ranks=1).ranks == 1
    assert planned(recorded(), link="network").ranks == 1


def test_half_precision_that_is_better_on_ranks_is_taken_with_what_fp32_takes_there() -> None:
    half = [
        timing("bf16", 0.040, batch=32),
        timing("bf16", 0.025, batch=16, threads=1, ranks=2),
    ]
    compute = planned([*recorded(), *half], cpu_features=BF16)
    assert (compute.precision, compute.memory_format, compute.ranks) == ("bf16", "channels_last", 2)
    assert compute.prediction is not None
    assert compute.prediction.fp32_seconds == pytest.approx(0.036)
    pinned = planned([*recorded(), *half], cpu_features=BF16, compute={"precision": "fp32"})
    assert (pinned.precision, pinned.ranks) == ("fp32", 2)


def test_ranks_that_do_not_fit_into_memory_are_not_taken() -> None:
    assert planned(recorded(), memory_bytes=2 << 30).ranks == 2
    assert planned(recorded(), memory_bytes=880 << 20).ranks == 1


def counts(cores: int, batch: int, model: str = "small_cnn", **compute: Any) -> list[int]:
    spec: JobSpec = spec_of(model, batch, compute)
    return split_counts(Case(spec.compute, plan_of(spec, side=64, device="cpu"), cpu(cores=cores)))


def test_numbers_of_ranks_that_are_worth_a_measurement() -> None:
    assert counts(1, 64) == []
    assert counts(2, 64) == [2]
    assert counts(64, 64) == [2, 4, 8]
    assert counts(64, 32) == [2, 4]
    assert counts(64, 32, "resnet18") == [2]
    assert counts(64, 64, strategy="ddp") == counts(64, 64, micro_batch_size=32) == []


def test_a_table_from_before_is_one_of_single_ranks() -> None:
    old = {"precision": "fp32", "memory_format": "channels_last", "threads": 2, "batch": 64, "seconds": 0.1}
    table = ProbeTable.model_validate({"key": "k", "device_name": "a CPU", "timings": [old]})
    assert [one.ranks for one in table.alone] == [1]
