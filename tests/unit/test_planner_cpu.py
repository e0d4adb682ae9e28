"""What is decided on CPUs, with a probe and without."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.planner_cases import chosen, cpu, plan_of, probed, spec_of, timing
from training_core.contract.errors import Failed
from training_core.planner.choose import choose_compute
from training_core.planner.facts import cores_allowed, cpu_features, memory_bytes, numa_nodes
from training_core.planner.spread import pieces_of
from training_core.planner.table import along, key_of

BF16 = ["avx2", "avx512f", "avx512_bf16"]


def test_one_process_takes_all_cores_however_many_slots_it_holds() -> None:
    compute = chosen(spec_of("resnet18", 64), cpu(cores=8, devices=4), 64)
    assert (compute.strategy, compute.ranks, compute.threads) == ("single", 1, 8)
    assert compute.precision == "fp32"


def test_each_memory_node_gets_a_rank() -> None:
    compute = chosen(spec_of("resnet18", 64), cpu(cores=64, devices=2, numa_nodes=2), 64)
    assert (compute.strategy, compute.ranks, compute.threads) == ("ddp", 2, 32)


def test_ranks_that_are_asked_for_are_started() -> None:
    compute = chosen(spec_of("small_cnn", 64, {"strategy": "ddp"}), cpu(cores=2, devices=2), 28)
    assert (compute.strategy, compute.ranks, compute.threads) == ("ddp", 2, 1)


def test_half_precision_needs_a_measurement() -> None:
    assert chosen(spec_of("resnet18", 64), cpu(cpu_features=BF16), 64).precision == "fp32"


@pytest.mark.parametrize(
    ("fp32", "bf16", "whole", "expected"),
    [(0.30, 0.15, True, "bf16"), (0.30, 0.295, True, "fp32"), (0.30, 4.8, False, "fp32")],
)
def test_a_measurement_decides_about_half_precision(fp32: float, bf16: float, whole: bool, expected: str) -> None:
    spec, host = spec_of("resnet18", 64), cpu(cpu_features=BF16)
    plan = plan_of(spec, side=64, device="cpu")
    table = probed(plan, host, timing("fp32", fp32), timing("bf16", bf16, whole=whole))
    compute = choose_compute(spec.compute, plan, host, table)
    assert compute.precision == expected
    assert "measured" in compute.reasons["compute.precision"]
    assert compute.prediction is not None
    assert compute.prediction.compute_seconds == pytest.approx(min(fp32, bf16) if expected == "bf16" else fp32)
    assert (compute.prediction.fp32_seconds is not None) == (expected == "bf16")


def test_a_pinned_precision_is_kept_and_its_price_is_said() -> None:
    compute = chosen(spec_of("resnet18", 64, {"precision": "bf16"}), cpu(), 64)
    assert compute.precision == "bf16"
    [warning] = [one for one in compute.warnings if one.startswith("slow_precision: ")]
    assert "fp32" in warning
    assert "compute.precision" in warning


def test_layout_threads_and_pieces_are_taken_when_they_are_clearly_faster() -> None:
    spec, host = spec_of("small_cnn", 64), cpu()
    plan = plan_of(spec, side=28, device="cpu", channels=1)
    usual = [timing("fp32", 0.020), timing("fp32", 0.0195, memory_format="contiguous")]
    same = choose_compute(spec.compute, plan, host, probed(plan, host, *usual, timing("fp32", 0.0196, threads=1)))
    assert (same.memory_format, same.threads, same.micro_batch_size) == ("channels_last", 2, 0)
    other = [
        timing("fp32", 0.012, memory_format="contiguous"),
        timing("fp32", 0.009, memory_format="contiguous", threads=1),
        timing("fp32", 0.003, memory_format="contiguous", threads=1, batch=32),
    ]
    best = choose_compute(spec.compute, plan, host, probed(plan, host, usual[0], *other))
    assert (best.memory_format, best.threads, best.micro_batch_size) == ("contiguous", 1, 32)
    assert best.prediction is not None
    assert best.prediction.compute_seconds == pytest.approx(0.006)


@pytest.mark.parametrize(
    ("model", "side", "batch", "cores", "seconds"),
    [("small_cnn", 28, 64, 1, 8.3e-3), ("small_cnn", 28, 64, 2, 7.2e-3), ("resnet18", 64, 32, 2, 0.122)],
)
def test_what_is_published_of_a_cpu_is_near_what_was_measured_on_one(
    model: str, side: int, batch: int, cores: int, seconds: float
) -> None:
    """`benchmarks/engine/results`, on a quiet machine with AVX-512."""
    compute = chosen(spec_of(model, batch), cpu(cores=cores, cpu_features=BF16), side)
    assert compute.prediction is not None
    assert compute.prediction.basis == "published"
    assert compute.prediction.compute_seconds == pytest.approx(seconds, rel=0.15)


def test_a_network_with_batch_norm_is_not_cut_for_speed() -> None:
    spec, host = spec_of("resnet18", 64), cpu()
    plan = plan_of(spec, side=64, device="cpu")
    table = probed(plan, host, timing("fp32", 0.4), timing("fp32", 0.1, batch=32))
    assert choose_compute(spec.compute, plan, host, table).micro_batch_size == 0


def test_little_memory_cuts_the_batch_and_less_refuses_it() -> None:
    spec = spec_of("resnet18", 64)
    compute = chosen(spec, cpu(memory_bytes=900 << 20), 224)
    assert 0 < compute.micro_batch_size < 64
    with pytest.raises(Failed, match="can be used"):
        chosen(spec, cpu(memory_bytes=500 << 20), 224)


def test_ranks_that_somebody_started_are_what_is_planned_for() -> None:
    spec, host = spec_of("small_cnn", 64), cpu(cores=2, devices=1)
    plan = plan_of(spec, side=28, device="cpu")
    compute = choose_compute(spec.compute, plan, host, None, fixed_ranks=2)
    assert (compute.strategy, compute.ranks, compute.threads) == ("ddp", 2, 1)
    single = spec_of("small_cnn", 64, {"strategy": "single"})
    with pytest.raises(Failed, match="2 ranks have been started"):
        choose_compute(single.compute, plan, host, None, fixed_ranks=2)


def test_the_key_knows_what_changes_the_time_of_a_step_and_nothing_else() -> None:
    def key(model: str = "resnet18", batch: int = 64, side: int = 64, cores: int = 2, seed: int = 0) -> str:
        return key_of(plan_of(spec_of(model, batch, seed=seed), side=side, device="cpu"), cpu(cores=cores))

    assert key() == key(batch=128) == key(seed=5)
    assert len({key(), key("resnet50"), key(side=65), key(cores=4)}) == 4


@given(st.integers(1, 4096), st.integers(1, 4096))
def test_pieces_hold_the_share_and_fit(share: int, most: int) -> None:
    size = pieces_of(share, most)
    assert (size == 0) == (most >= share)
    if size:
        assert 1 <= size <= most
        assert -(-share // size) <= -(-share // most) + 1


@given(st.lists(st.tuples(st.integers(1, 512), st.floats(0.001, 10)), min_size=1, max_size=5, unique_by=lambda p: p[0]))
def test_lines_pass_through_what_was_measured(points: list[tuple[int, float]]) -> None:
    points.sort()
    for place, value in points:
        assert along(points, place) == pytest.approx(value)
    assert along(points, points[-1][0] * 2) == pytest.approx(2 * points[-1][1])
    assert 0 < along(points, 0.5) <= points[0][1]


def test_control_groups_count_where_they_give_less(tmp_path: Path) -> None:
    group = tmp_path / "pods" / "one"
    group.mkdir(parents=True)
    own = tmp_path / "own"
    own.write_text("0::/pods/one\n")
    assert (cores_allowed(tmp_path, own), memory_bytes(tmp_path, own)) == (cores_allowed(), memory_bytes())
    (group / "cpu.max").write_text("max 100000\n")
    (group.parent / "cpu.max").write_text("100000 100000\n")
    (group / "memory.max").write_text("1073741824\n")
    (group.parent / "memory.max").write_text("max\n")
    assert cores_allowed(tmp_path, own) == 1
    assert memory_bytes(tmp_path, own) == 1 << 30


def test_nodes_and_features_are_read_where_the_kernel_tells_them(tmp_path: Path) -> None:
    assert numa_nodes(tmp_path / "nowhere") == 1
    for name in ("node0", "node1", "possible"):
        (tmp_path / name).mkdir()
    assert numa_nodes(tmp_path) == 2
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("model name\t: X\nflags\t\t: fpu avx2 avx512_bf16\n")
    assert cpu_features(cpuinfo) == ["avx2", "avx512_bf16"]
