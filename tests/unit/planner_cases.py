"""Plans and hosts for the tests of the planner: devices as published, and tables as probes would bring them."""

from __future__ import annotations

from typing import Any

from training_core.contract.compute_plan import ComputePlan, MemoryFormat, ResolvedPrecision
from training_core.contract.spec import JobSpec
from training_core.planner.choose import choose_compute
from training_core.planner.facts import HostFacts
from training_core.planner.plan import Plan, choose_plan
from training_core.planner.recipe import DataFacts
from training_core.planner.table import ProbeTable, Timing, key_of

GIB = 1 << 30
A100 = {"device_name": "NVIDIA A100-SXM4-80GB", "device_memory_bytes": 80 * GIB, "compute_capability": (8, 0)}
V100 = {"device_name": "Tesla V100-SXM2-16GB", "device_memory_bytes": 16 * GIB, "compute_capability": (7, 0)}
RTX3090 = {"device_name": "NVIDIA GeForce RTX 3090", "device_memory_bytes": 24 * GIB, "compute_capability": (8, 6)}


def spec_of(model: str, batch: int | str = "auto", compute: dict[str, Any] | None = None, **training: Any) -> JobSpec:
    return JobSpec.model_validate(
        {
            "task": "image-classification",
            "dataset": {"uri": "file:///pets"},
            "model": {"name": model},
            "compute": compute or {},
            "training": {"batch_size": batch, **training},
        }
    )


def plan_of(spec: JobSpec, *, side: int, images: int = 100_000, channels: int = 3, device: str = "cuda") -> Plan:
    return choose_plan(spec, DataFacts(images, 10, channels, side, "as it is"), device=device)


def gpus(count: int = 1, link: str = "nvlink", **facts: Any) -> HostFacts:
    known = {"cores": 16 * count, "memory_bytes": 256 * GIB, "link": link if count > 1 else "none"}
    return HostFacts(device="cuda", devices=count, **{**known, **facts})


def cpu(cores: int = 2, devices: int = 1, **facts: Any) -> HostFacts:
    known = {"memory_bytes": 24 * GIB, "device_name": "a CPU", "cpu_features": ["avx2"]}
    return HostFacts(device="cpu", devices=devices, cores=cores, **{**known, **facts})


def chosen(spec: JobSpec, host: HostFacts, side: int, table: ProbeTable | None = None, **plan: Any) -> ComputePlan:
    planned = plan_of(spec, side=side, device=host.device, **plan)
    return choose_compute(spec.compute, planned, host, table)


def timing(
    precision: ResolvedPrecision,
    seconds: float,
    *,
    batch: int = 64,
    memory_format: MemoryFormat = "channels_last",
    threads: int = 2,
    ranks: int = 1,
    whole: bool = True,
) -> Timing:
    return Timing(
        precision=precision,
        memory_format=memory_format,
        threads=threads,
        ranks=ranks,
        batch=batch,
        seconds=seconds,
        whole=whole,
    )


def probed(plan: Plan, host: HostFacts, *timings: Timing, **more: Any) -> ProbeTable:
    return ProbeTable(key=key_of(plan, host), device_name=host.device_name, timings=list(timings), **more)
