"""What is decided on GPUs that are not here: tables of published figures, and one of a probe."""

from __future__ import annotations

import pytest

from tests.unit.planner_cases import A100, GIB, RTX3090, V100, chosen, gpus, plan_of, probed, spec_of, timing
from training_core.contract.errors import Failed
from training_core.planner.choose import choose_compute
from training_core.planner.table import Memory

IMAGENET = 1_281_167


def codes(warnings: list[str]) -> set[str]:
    return {warning.partition(": ")[0] for warning in warnings}


def test_resnet50_on_eight_a100_is_ddp_in_bf16_and_as_fast_as_nvidia_says() -> None:
    compute = chosen(spec_of("resnet50", 2048), gpus(8, **A100), 224, images=IMAGENET)
    assert (compute.strategy, compute.ranks, compute.precision) == ("ddp", 8, "bf16")
    assert compute.gradient_compression == "none"
    assert not compute.activation_checkpointing
    assert compute.prediction is not None
    # NVIDIA DeepLearningExamples: 16,621 images a second on a DGX A100.
    assert compute.prediction.images_per_second == pytest.approx(16_621, rel=0.1)
    assert compute.prediction.basis == "published"


def test_one_a100_trains_resnet50_at_its_published_speed() -> None:
    compute = chosen(spec_of("resnet50", 256), gpus(1, **A100), 224, images=IMAGENET)
    assert (compute.strategy, compute.ranks) == ("single", 1)
    assert compute.prediction is not None
    assert compute.prediction.images_per_second == pytest.approx(2470, rel=0.05)
    assert compute.prediction.memory_bytes < compute.prediction.memory_limit_bytes


def test_a_small_network_stays_on_few_of_many_devices_and_says_so() -> None:
    compute = chosen(spec_of("small_cnn", 64), gpus(8, **A100), 28, images=60_000, channels=1)
    assert compute.ranks <= 2
    assert "idle_devices" in codes(compute.warnings)


def test_what_the_spec_pins_is_not_questioned() -> None:
    pinned = {"strategy": "ddp", "precision": "fp32", "memory_format": "contiguous", "gradient_compression": "powersgd"}
    compute = chosen(spec_of("small_cnn", 64, pinned), gpus(8, **A100), 28, images=60_000)
    assert compute.ranks == 8
    assert {name: getattr(compute, name) for name in pinned} == pinned
    assert all(compute.reasons[f"compute.{name}"] == "as requested" for name in pinned)


def test_ten_gigabit_networks_get_compressed_gradients() -> None:
    fast = chosen(spec_of("resnet50", 512), gpus(8, **A100), 224, images=IMAGENET)
    slow = chosen(spec_of("resnet50", 512), gpus(8, link="network", **A100), 224, images=IMAGENET)
    assert fast.gradient_compression == "none"
    assert slow.gradient_compression == "bf16" or slow.ranks < fast.ranks
    assert "exposed communication" in slow.reasons["compute.gradient_compression"]
    assert slow.prediction is not None
    assert fast.prediction is not None
    assert slow.prediction.step_seconds > fast.prediction.step_seconds


def test_a_v100_computes_in_fp16_and_an_older_gpu_in_fp32() -> None:
    compute = chosen(spec_of("resnet50", 256), gpus(1, **V100), 224)
    assert compute.precision == "fp16"
    assert compute.prediction is not None
    assert compute.prediction.images_per_second == pytest.approx(1200, rel=0.05)
    older = {"device_name": "Tesla P100", "device_memory_bytes": 16 * GIB, "compute_capability": (6, 0)}
    assert chosen(spec_of("resnet50", 256), gpus(1, **older), 224).precision == "fp32"


def test_an_rtx_3090_is_faster_in_channels_last_and_the_reason_has_the_numbers() -> None:
    compute = chosen(spec_of("resnet50", 128), gpus(1, **RTX3090), 224)
    assert compute.memory_format == "channels_last"
    assert "contiguous" in compute.reasons["compute.memory_format"]
    other = chosen(spec_of("resnet50", 128, {"memory_format": "contiguous"}), gpus(1, **RTX3090), 224)
    speeds = [one.prediction.images_per_second for one in (compute, other) if one.prediction is not None]
    assert speeds == pytest.approx([1218, 826], rel=0.06)  # timm's figures


def test_a_batch_larger_than_memory_is_accumulated_and_stays_the_same_batch() -> None:
    compute = chosen(spec_of("resnet50", 1024), gpus(1, **{**V100, "device_memory_bytes": 8 * GIB}), 224)
    assert compute.strategy == "single"
    assert not compute.activation_checkpointing
    assert 0 < compute.micro_batch_size < 256
    assert compute.accumulation_steps(1024) * compute.micro_batch_size >= 1024
    assert "the batch stays 1024" in compute.reasons["compute.micro_batch_size"]
    assert compute.prediction is not None
    assert compute.prediction.memory_bytes <= compute.prediction.memory_limit_bytes


def memory_for(per_device: float, count: int = 1) -> object:
    return gpus(count, **{**A100, "device_memory_bytes": int(per_device * GIB)})


def test_memory_decides_between_keeping_recomputing_and_sharding() -> None:
    """From plenty to little: kept activations, recomputed ones, FSDP2, and in the end a refusal with the numbers."""
    spec = spec_of("resnet50", 64, optimizer={"name": "adamw"})

    def way(per_device: float, count: int) -> tuple[str, bool]:
        compute = chosen(spec, memory_for(per_device, count), 224)  # type: ignore[arg-type]
        return compute.strategy, compute.activation_checkpointing

    assert way(4, 4) == ("ddp", False)
    seen = {way(gib, 4) for gib in (1.75, 1.9, 2.0, 2.1, 2.25, 2.5)}
    assert ("ddp", True) in seen
    assert way(1.7, 4)[0] == "fsdp"
    with pytest.raises(Failed, match=r"resnet50 needs .* of 4 devices") as failed:
        chosen(spec, memory_for(0.9, 4), 224)  # type: ignore[arg-type]
    assert failed.value.reason == "out_of_memory"
    assert "compute.profile" in (failed.value.hint or "")


def test_few_images_of_a_rank_share_their_batch_norm() -> None:
    compute = chosen(spec_of("resnet50", 64, {"strategy": "ddp"}), gpus(8, **A100), 224)
    assert compute.sync_batch_norm
    pinned = chosen(spec_of("resnet50", 64, {"strategy": "ddp", "sync_batch_norm": False}), gpus(8, **A100), 224)
    assert not pinned.sync_batch_norm
    assert "small_batch" in codes(pinned.warnings)
    assert not chosen(spec_of("small_cnn", 64, {"strategy": "ddp"}), gpus(8, **A100), 28).sync_batch_norm


def test_a_probe_overrules_what_is_published() -> None:
    spec, host = spec_of("resnet18", 64), gpus(1, **A100)
    plan = plan_of(spec, side=64)
    slow_half = [timing("bf16", 0.02, threads=0), timing("fp32", 0.01, threads=0)]
    memory = [Memory(precision="fp32", base_bytes=2 * GIB, bytes_per_image=2 * GIB)]
    compute = choose_compute(spec.compute, plan, host, probed(plan, host, *slow_half, memory=memory))
    assert compute.precision == "fp32"
    assert "measured" in compute.reasons["compute.precision"]
    assert compute.micro_batch_size == 32
    assert compute.prediction is not None
    assert compute.prediction.basis == "probes"


def test_compiling_must_save_three_times_its_cost() -> None:
    spec, host = spec_of("resnet50", 256, epochs=90), gpus(1, **A100)
    plan = plan_of(spec, side=224, images=IMAGENET)
    usual = timing("bf16", 0.104, batch=256, threads=0)
    table = probed(plan, host, usual, compile_gain=0.85, compile_seconds=60.0)
    assert choose_compute(spec.compute, plan, host, table).compile
    short = plan_of(spec_of("resnet50", 256, epochs=1), side=224, images=50_000)
    assert not choose_compute(spec.compute, short, host, table).compile


def test_loader_threads_follow_from_the_time_an_image_takes() -> None:
    few = chosen(spec_of("resnet50", 256), gpus(1, **{**A100, "cores": 64}), 224)
    assert few.loader_threads == 3  # 1.3 x 2,470 images a second x 0.85 ms
    assert few.prediction is not None
    assert few.prediction.data_seconds < few.prediction.compute_seconds
    starved = chosen(spec_of("resnet50", 256), gpus(1, **{**A100, "cores": 4}), 224)
    assert starved.loader_threads == 1
    assert starved.prediction is not None
    assert starved.prediction.step_seconds == starved.prediction.data_seconds
