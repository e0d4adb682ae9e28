"""What the planner knows without measuring anything: the host and its devices."""

from __future__ import annotations

import math
import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

# Of /proc/cpuinfo, as far as they decide about precision.
CPU_FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_fp16")


class HostFacts(BaseModel):
    """`device_name`, `device_memory_bytes` and `compute_capability` are those of one GPU; `link` joins several.

    On a CPU, `devices` slots of this job share `cores` and `memory_bytes`, and `device_name` is the CPU's. Of a memory,
    `memory_share` may be filled: less where trainings like this one ran out of it before.
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
    memory_share: float = Field(default=0.9, gt=0, le=1)

    @property
    def limit_bytes(self) -> int:
        """Of the memory of one device, or of the host that CPU ranks share."""
        return int(self.memory_share * (self.device_memory_bytes if self.device == "cuda" else self.memory_bytes))


CGROUPS, OWN_CGROUP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
NODES = Path("/sys/devices/system/node")
CPUINFO = Path("/proc/cpuinfo")


def cores_allowed(root: Path = CGROUPS, own: Path = OWN_CGROUP) -> int:
    """Those that this process may run on, or as many as its control groups give it the time of, if that is less."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [_cores_of(text) for text in _limits("cpu.max", root, own)]
    return max(1, min([cores, *[math.ceil(quota) for quota in quotas if quota is not None]]))


def _cores_of(text: str) -> float | None:
    """Of `quota period` in microseconds; None for `max`."""
    quota, _, period = text.partition(" ")
    return None if quota == "max" else int(quota) / int(period)


def memory_bytes(root: Path = CGROUPS, own: Path = OWN_CGROUP) -> int:
    """Of this host, or what its control groups leave to this process, if that is less."""
    all_of_it = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([all_of_it, *[int(text) for text in _limits("memory.max", root, own) if text != "max"]])


def _limits(name: str, root: Path, own: Path) -> list[str]:
    """The file `name` of this process's control group (version 2) and of those above it, where there are some."""
    lines = own.read_text().splitlines() if own.exists() else []
    path = next((line.removeprefix("0::/") for line in lines if line.startswith("0::")), None)
    if path is None:
        return []
    folders = [root / path, *(root / path).parents]
    files = [folder / name for folder in folders if folder == root or root in folder.parents]
    return [file.read_text().strip() for file in files if file.exists()]


def numa_nodes(folder: Path = NODES) -> int:
    """With memory and cores of their own; one where nobody says."""
    return max(1, len(list(folder.glob("node[0-9]*")))) if folder.exists() else 1


def cpu_name(cpuinfo: Path = CPUINFO) -> str:
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def cpu_features(cpuinfo: Path = CPUINFO) -> list[str]:
    """Those of `CPU_FEATURES` that this CPU has; none where the file is missing."""
    if not cpuinfo.exists():
        return []
    for line in cpuinfo.read_text().splitlines():
        if line.startswith("flags"):
            return [name for name in CPU_FEATURES if name in line.split()]
    return []
