"""Tables of real devices out of published figures, for plans that nobody has probed yet.

Throughput of ResNet-50 at 224 px by device, scaled to other networks by their operations and by how well such networks
fill a device.
"""

from __future__ import annotations

from dataclasses import dataclass

from training_core.contract.compute_plan import MemoryFormat, ResolvedPrecision
from training_core.planner.facts import HostFacts
from training_core.planner.plan import Plan
from training_core.planner.table import ProbeTable, Timing, key_of
from training_core.planner.workload import Workload, workload_of

RESNET50_FLOPS = 8.18e9  # of a forward pass at 224 px, as `network_table` counts
BATCHES = (1, 8, 32, 128, 512)
GPU_STEP_SECONDS, GPU_LAYER_SECONDS = 1e-3, 3e-5  # launching kernels, forward, backward and optimizer
FORMATS: tuple[MemoryFormat, ...] = ("channels_last", "contiguous")


@dataclass(frozen=True)
class Device:
    """Images of ResNet-50 a second, trained; `contiguous` is the share of it in that layout."""

    name: str
    rates: dict[ResolvedPrecision, float]
    contiguous: float
    source: str


# NVIDIA DeepLearningExamples, README of ResNet-50 v1.5 (TF32 stands under fp32, which is what torch computes with it).
DLE = "NVIDIA DeepLearningExamples, ResNet-50 v1.5"
# timm results/benchmark-train-amp-{nhwc,nchw}, torch 1.12: 1,218 and 826 images a second.
TIMM = "timm benchmark-train-amp, torch 1.12"
# MLPerf Training: NVIDIA's 8 x A100 took 28.7 minutes, 8 x H100 13.5 (v3.0).
MLPERF = f"{DLE}, times 2.13 by NVIDIA's MLPerf entries on 8 A100 and 8 H100"
DEVICES = (
    Device("H200", {"bf16": 5260, "fp16": 5260, "fp32": 2000}, 0.68, MLPERF),
    Device("H100", {"bf16": 5260, "fp16": 5260, "fp32": 2000}, 0.68, MLPERF),
    Device("A100", {"bf16": 2470, "fp16": 2470, "fp32": 938}, 0.68, DLE),
    Device("V100", {"fp16": 1200, "fp32": 367}, 0.68, DLE),
    Device("RTX 3090", {"bf16": 1218, "fp16": 1218, "fp32": 490}, 826 / 1218, TIMM),
)
OTHER_GPU = Device("GPU", {"bf16": 1000, "fp16": 1000, "fp32": 380}, 0.68, "a guess below every device listed")
# Of the operations a second of ResNet-50 on the same device. timm's table for the RTX 3090 has ResNet-18 at 3,482
# images a second and EfficientNet-B0, of depthwise layers as MobileNet is, at 1,752 (0.8 GFLOP).
FILL = {"resnet50": 1.0, "resnet18": 1.27, "mobilenet_v3_small": 0.12, "mobilenet_v3_large": 0.14}
OTHER_FILL = 0.2
# Operations a second of one core in a training step of ResNet-18 in fp32, measured with AVX-512 (ResNet-18 of 64 px, 32
# images: 0.2 s) and by the width of the units elsewhere; and what other networks reach of it.
CORE_FLOPS = {"avx512f": 1.3e11, "avx2": 5e10, "": 1.2e10}
CPU_FILL = {
    "small_cnn": 1.1, "small_resnet": 1.2, "resnet50": 0.7, "resnet18": 1.0, "mobilenet_v3_small": 0.2,
    "mobilenet_v3_large": 0.2,
}  # fmt: skip
OTHER_CPU_FILL = 0.5
CPU_STEP_SECONDS, CPU_LAYER_SECONDS = 1e-3, 5e-5
# Threads that sleep between two layers are woken for each (OMP_WAIT_POLICY=PASSIVE). Measured on two cores of an EPYC:
# small_cnn, 64 images of 28 px, takes 8.3 ms with one thread (`benchmarks.engine.communication`, alone) and 7.2 with
# two (`benchmarks.engine.overhead`, by hand).
CPU_WAKING_SECONDS = 1e-4
# Half precision on a CPU: 15-18 times as long without units for it; with them, gains differ by layer and are probed.
SLOW_HALF, UNKNOWN_HALF = 16.0, 1.0

# Bytes a second that one rank's all-reduce moves, and the seconds that each of its rounds takes. NVLink of an A100
# (200 GB/s in practice), PCIe 4.0 through the host, 10 Gbit Ethernet, gloo over loopback (46.8 MB in 49 ms).
LINKS = {
    "nvlink": (2.0e11, 2e-5), "pcie": (1.2e10, 3e-5), "network": (1.25e9, 1e-4), "shared_memory": (9.5e8, 2e-4),
    "none": (9.5e8, 2e-4),
}  # fmt: skip


def published_table(plan: Plan, host: HostFacts) -> ProbeTable:
    """What is known of such a device without having measured it here."""
    work = workload_of(plan)
    if host.device == "cuda":
        device = device_of(host.device_name)
        timings, source = _gpu_timings(plan, work, device), device.source
    else:
        timings, source = _cpu_timings(plan, work, host), "operations of the network and what a core does in a second"
    return ProbeTable(
        key=key_of(plan, host),
        device_name=host.device_name,
        basis="published",
        source=source,
        timings=timings,
    )


def device_of(name: str) -> Device:
    return next((device for device in DEVICES if device.name.lower() in name.lower()), OTHER_GPU)


def ring_seconds(bytes_: int, ranks: int, link: str) -> float:
    """Of a ring all-reduce: each rank sends `2 (n - 1) / n` of the bytes in as many rounds (Patarasuk & Yuan 2009)."""
    speed, latency = LINKS[link]
    return 2 * (ranks - 1) / ranks * bytes_ / speed + 2 * (ranks - 1) * latency


def _gpu_timings(plan: Plan, work: Workload, device: Device) -> list[Timing]:
    fill = FILL.get(plan.model, OTHER_FILL)
    fixed = GPU_STEP_SECONDS + GPU_LAYER_SECONDS * work.layers
    return [
        Timing(
            precision=precision,
            memory_format=memory_format,
            threads=0,
            batch=batch,
            seconds=fixed + batch * work.flops / (RESNET50_FLOPS * rate * fill * share),
        )
        for precision, rate in device.rates.items()
        for memory_format, share in zip(FORMATS, (1.0, device.contiguous), strict=True)
        for batch in BATCHES
    ]


def _cpu_timings(plan: Plan, work: Workload, host: HostFacts) -> list[Timing]:
    """A step takes three times the operations of its forward pass."""
    core = next(speed for feature, speed in CORE_FLOPS.items() if feature in {*host.cpu_features, ""})
    speed = core * CPU_FILL.get(plan.model, OTHER_CPU_FILL)
    units = {"avx512_bf16", "amx_bf16"} & set(host.cpu_features)
    slower: dict[ResolvedPrecision, float] = {"fp32": 1.0, "bf16": UNKNOWN_HALF if units else SLOW_HALF}
    slower["fp16"] = 1.0 if "amx_fp16" in host.cpu_features else SLOW_HALF
    fixed = CPU_STEP_SECONDS + CPU_LAYER_SECONDS * work.layers
    waking = CPU_WAKING_SECONDS * work.layers
    return [
        Timing(
            precision=precision,
            memory_format=memory_format,
            threads=threads,
            batch=batch,
            seconds=fixed + waking * (threads > 1) + factor * batch * 3 * work.flops / (speed * threads**0.9),
        )
        for precision, factor in slower.items()
        for memory_format in FORMATS
        for threads in sorted({1, max(1, host.cores // 2), host.cores})
        for batch in BATCHES
    ]
