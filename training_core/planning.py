"""The compute plan of an attempt, made before any rank starts, by the process that will start them."""

from __future__ import annotations

from training_core.planner.choose import choose_compute
from training_core.planner.compute_plan import ComputePlan
from training_core.planner.facts import HostFacts, cores_allowed, cpu_features, memory_bytes
from training_core.rundir import RunDir, RunSpec


def plan_compute(run_dir: RunDir, *, fixed_ranks: int | None = None) -> ComputePlan:
    """Decide, and write `plan.json`. `fixed_ranks` have been started already and read it."""
    run = run_dir.read_spec()
    plan = choose_compute(run.spec.compute, look_at_host(run), fixed_ranks=fixed_ranks)
    run_dir.write_plan(plan)
    return plan


def look_at_host(run: RunSpec) -> HostFacts:
    capability = None
    if run.device == "cuda":
        import torch  # noqa: PLC0415  costs seconds, and a CPU needs none of it

        capability = torch.cuda.get_device_capability(0)
    return HostFacts(
        device=run.device,
        devices=run.devices,
        cores=cores_allowed(),
        memory_bytes=memory_bytes(),
        cpu_features=cpu_features(),
        compute_capability=capability,
    )
