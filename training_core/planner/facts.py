"""What the planner knows without measuring anything: the host and its devices."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

# Of /proc/cpuinfo, as far as they decide about precision.
CPU_FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_fp16")


class HostFacts(BaseModel):
    """`device_name`, `device_memory_bytes` and `compute_capability` are those of one GPU; `link` joins several.

    On a CPU, `devices` slots share `cores` and `memory_bytes`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str = Field(pattern="^(cpu|cuda)$")
    devices: int = Field(ge=1)
    cores: int = Field(ge=1)
    memory_bytes: int
    numa_nodes: int = 1
    cpu_features: list[str] = Field(default_factory=list)
    device_name: str = ""
    device_memory_bytes: int = 0
    compute_capability: tuple[int, int] | None = None
    link: str = Field(default="none", pattern="^(none|shared_memory|pcie|nvlink|network)$")


def cores_allowed() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_features(cpuinfo: Path = Path("/proc/cpuinfo")) -> list[str]:
    """Those of `CPU_FEATURES` that this CPU has; none where the file is missing."""
    if not cpuinfo.exists():
        return []
    for line in cpuinfo.read_text().splitlines():
        if line.startswith("flags"):
            return [name for name in CPU_FEATURES if name in line.split()]
    return []


def memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
