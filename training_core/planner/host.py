"""The host that a run is on, as the planner sees it."""

from __future__ import annotations

import os

from training_core.contract.run_dir import RunSpec
from training_core.planner.facts import HostFacts, cores_allowed, cpu_features, cpu_name, memory_bytes, numa_nodes
from training_core.processes.gpus import look_at_gpus


def look_at_host(run: RunSpec) -> HostFacts:
    """Cores are those of the job: its slots' share of what this process may use. Several hosts are like this one."""
    cores, hosts = cores_allowed(), number_of_hosts()
    link = "shared_memory" if run.device == "cpu" and run.devices > 1 else "none"
    facts = HostFacts(
        device=run.device,
        devices=run.devices,
        cores=hosts * (min(cores, run.threads * run.devices) if run.threads else cores),
        memory_bytes=hosts * memory_bytes(),
        numa_nodes=numa_nodes(),
        cpu_features=cpu_features(),
        device_name=cpu_name(),
        link="network" if hosts > 1 else link,
    )
    if run.device == "cpu":
        return facts
    gpu = look_at_gpus()
    memory = int(run.share * gpu.memory_bytes)
    changes = {"device_name": gpu.name, "device_memory_bytes": memory, "compute_capability": gpu.capability}
    if run.devices > 1 and hosts == 1:
        changes["link"] = "nvlink" if gpu.nvlink else "pcie"
    return facts.model_copy(update=changes)


def number_of_hosts() -> int:
    """By the environment that torchrun gives its ranks; one without it."""
    return max(1, int(os.environ.get("WORLD_SIZE", "1")) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
