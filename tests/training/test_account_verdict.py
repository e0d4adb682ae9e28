"""What the numbers of an account mean: on accounts that real trainings left, and on both sides of each threshold.

`accounts/*.json` were recorded by `python -m benchmarks.engine.faults --record`, each under the fault of its name, on
an otherwise quiet machine.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from training_core.efficiency.model import Account, Compared, Cpu, Numbers, Part, Queue, RankTimes, parts
from training_core.efficiency.verdict import judge

RECORDED = Path(__file__).parent / "accounts"
EXPECTED = {
    "undisturbed": "compute_bound",
    "slow_decode": "data_bound",
    "a_rank_that_sleeps": "straggler",
    "slow_all_reduce": "communication_bound",
    "a_cpu_hog": "noisy_neighbour",
    "a_tiny_batch": "small_batch",
}


def recorded(name: str) -> Numbers:
    content = json.loads((RECORDED / f"{name}.json").read_text())
    account = Account.model_validate(content)
    return Numbers.model_validate(account.model_dump(exclude={"verdict"}))


@pytest.mark.parametrize("name", EXPECTED)
def test_the_fault_of_a_recorded_training_is_named(name: str) -> None:
    verdict = judge(recorded(name))
    assert verdict.kind == EXPECTED[name], verdict
    assert any(any(character.isdigit() for character in sentence) for sentence in verdict.evidence)
    assert verdict.remedy


@pytest.mark.parametrize("name", EXPECTED)
def test_a_recorded_account_adds_up(name: str) -> None:
    numbers = recorded(name)
    told = sum(part.seconds for part in (*numbers.phases.values(), *numbers.steps.values()))
    assert told == pytest.approx(numbers.wall_seconds, rel=0.01)
    assert sum(part.fraction for part in numbers.steps.values()) == pytest.approx(1, abs=0.002)


def healthy(**changes: Any) -> Numbers:
    """An undisturbed training on one device of a quiet host, changed."""
    numbers = recorded("undisturbed")
    quiet = Cpu(cores=4, threads=4, seconds=9.0, busy=3.2, others=0.1, stolen=0.0, delayed=0.01)
    return numbers.model_copy(update={"cpu": quiet, "phases": {}, **changes})


def shares(**fractions: float) -> dict[str, Part]:
    """Of 10 s of steps; the rest is compute."""
    seconds = {name: 10 * fraction for name, fraction in fractions.items()}
    return parts({**seconds, "compute": 10 - sum(seconds.values())}, 10)


def late(readiness: float, threads: int = 1) -> Queue:
    return Queue(readiness=readiness, batches=100, late_batches=50, threads=threads, threads_at_start=1, most_threads=4)


def test_data_bound_needs_waiting_and_an_empty_queue() -> None:
    assert judge(healthy(steps=shares(data_wait=0.06), queue=late(0.90))).kind == "data_bound"
    assert judge(healthy(steps=shares(data_wait=0.04), queue=late(0.90))).kind == "compute_bound"
    assert judge(healthy(steps=shares(data_wait=0.06), queue=late(0.96))).kind == "compute_bound"
    assert judge(healthy(steps=shares(data_wait=0.06), queue=None)).kind == "compute_bound"


def test_data_bound_says_what_the_engine_did() -> None:
    verdict = judge(healthy(steps=shares(data_wait=0.3), queue=late(0.7, threads=3)))
    assert verdict.taken is not None
    assert "2 more threads" in verdict.taken
    assert judge(healthy(steps=shares(data_wait=0.3), queue=late(0.7))).taken is None


def ranks(*step_seconds: float, data: float = 0.0, changes: bool = False) -> RankTimes:
    slowest = step_seconds.index(max(step_seconds))
    others = [seconds for rank, seconds in enumerate(step_seconds) if rank != slowest]
    return RankTimes(
        step_seconds=list(step_seconds),
        data_wait_seconds=[data if rank == slowest else 0.0 for rank in range(len(step_seconds))],
        slowest=slowest,
        spread=max(step_seconds) / others[0] - 1,
        slowest_changes=changes,
        stretches=5,
    )


def test_communication_bound_leaves_out_what_ranks_wait_for_a_slow_one() -> None:
    even, uneven = ranks(0.05, 0.05), ranks(0.05, 0.10)
    both = {"world_size": 2, "steps": shares(communication=0.3), "step_seconds": 0.15}
    assert judge(healthy(ranks=even, **both)).kind == "communication_bound"
    assert judge(healthy(ranks=even, **{**both, "steps": shares(communication=0.09)})).kind == "compute_bound"
    verdict = judge(healthy(ranks=uneven, **both))
    assert (verdict.kind, verdict.also) == ("straggler", [])
    assert "rank 1" in verdict.evidence[0]


def test_ranks_that_share_a_cpu_and_are_faster_for_it_are_not_told_to_be_fewer() -> None:
    waiting = {"world_size": 2, "steps": shares(communication=0.3), "step_seconds": 0.100}
    verdict = judge(healthy(one_process_seconds=0.120, **waiting))
    assert verdict.kind == "compute_bound"
    assert any("100 ms for a step; one process took 120 ms" in sentence for sentence in verdict.evidence)


def test_ranks_that_share_a_cpu_and_turn_out_slower_are_told_so() -> None:
    waiting = {"world_size": 2, "steps": shares(communication=0.3), "step_seconds": 0.100}
    verdict = judge(healthy(one_process_seconds=0.070, **waiting))
    assert (verdict.kind, verdict.lost_fraction) == ("communication_bound", pytest.approx(0.3))
    assert "one process was faster" in verdict.remedy
    data = {**waiting, "steps": shares(communication=0.3, data_wait=0.3), "queue": late(0.99)}
    assert judge(healthy(one_process_seconds=0.070, **data)).kind == "compute_bound"  # of its 100 ms, 30 are data


def test_a_straggler_that_is_hardly_slower_is_none() -> None:
    both = {"world_size": 2, "step_seconds": 0.12}
    assert judge(healthy(ranks=ranks(0.10, 0.11), **both)).kind == "compute_bound"
    assert judge(healthy(ranks=ranks(0.10, 0.12), **both)).kind == "straggler"
    assert judge(healthy(ranks=ranks(0.001, 0.002), **both)).kind == "compute_bound", "1 ms of 120 ms"


def test_the_remedy_for_a_straggler_follows_from_why_it_is_one() -> None:
    both = {"world_size": 2, "step_seconds": 0.2}
    assert "storage" in judge(healthy(ranks=ranks(0.1, 0.2, data=0.09), **both)).remedy
    assert "different ranks" in judge(healthy(ranks=ranks(0.1, 0.2, changes=True), **both)).remedy
    assert "heat" in judge(healthy(ranks=ranks(0.1, 0.2), **both)).remedy


def cpu(**changes: Any) -> Cpu:
    return healthy().cpu.model_copy(update=changes)


def test_others_on_cores_that_nobody_needs_are_no_noise() -> None:
    assert judge(healthy(cpu=cpu(others=2.0, delayed=0.02))).kind == "compute_bound"
    assert judge(healthy(cpu=cpu(others=0.2, delayed=0.3))).kind == "compute_bound", "its own threads, too many"
    assert judge(healthy(cpu=cpu(others=2.0, delayed=0.2))).kind == "noisy_neighbour"


def test_time_that_a_hypervisor_or_a_quota_takes_is_noise() -> None:
    assert judge(healthy(cpu=cpu(stolen=0.5))).kind == "noisy_neighbour"
    assert judge(healthy(cpu=cpu(throttled=0.3))).kind == "noisy_neighbour"
    assert judge(healthy(cpu=cpu(others=None, stolen=None, delayed=None))).kind == "compute_bound"


def test_the_dearest_fault_is_the_verdict_and_the_others_are_named() -> None:
    numbers = healthy(cpu=cpu(others=2.0, delayed=0.2), steps=shares(data_wait=0.6), queue=late(0.4))
    assert judge(numbers).kind == "data_bound"
    assert judge(numbers).also == ["noisy_neighbour"]


def test_a_training_whose_images_cost_more_than_in_an_evaluation_has_a_small_batch() -> None:
    verdict = judge(healthy(small_batch_factor=3.0))
    assert verdict.kind == "small_batch"
    assert "3.0 times" in verdict.evidence[-1]
    assert judge(healthy(small_batch_factor=2.0)).kind == "compute_bound"
    assert judge(healthy(small_batch_factor=3.0, device="cuda", host_fraction=0.3)).kind == "compute_bound"


def test_work_that_does_not_depend_on_the_batch_shows_a_small_one() -> None:
    assert judge(healthy(steps=shares(optimizer=0.2, other=0.1))).kind == "small_batch"
    assert judge(healthy(steps=shares(optimizer=0.1, other=0.1))).kind == "compute_bound"
    launching = judge(healthy(device="cuda", host_fraction=0.9))
    assert launching.kind == "small_batch"
    assert "launches" in launching.evidence[-1]


def test_a_gpu_that_computes_in_fp32_is_told_so() -> None:
    assert "precision" in judge(healthy(device="cuda", host_fraction=0.3)).remedy
    assert "precision" not in judge(healthy(device="cuda", host_fraction=0.3, precision="bf16")).remedy


def test_a_training_that_stood_still() -> None:
    numbers = healthy(steps=shares(data_wait=0.7), stalled_seconds=7.0, longest_step_seconds=7.0)
    assert judge(numbers).kind == "stalled"


def test_a_few_steps_are_not_judged() -> None:
    verdict = judge(healthy(step_count=5, phases=parts({"startup": 3.0, "other": 1.0}, 4.0)))
    assert verdict.kind == "too_short"
    assert "75 %" in verdict.evidence[1]


def test_a_prediction_beside_its_measurement() -> None:
    assert Compared(predicted=2.0, measured=3.0).ratio == 1.5
    assert Compared(predicted=0.0, measured=3.0).ratio == 0.0
