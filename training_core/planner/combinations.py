"""Ways of computing that do not go together. Torch-free, so that a spec is refused before anything starts."""

from __future__ import annotations

from training_core.contract.compute_plan import ComputePlan
from training_core.contract.errors import Failed, Reason

# They look at whole matrices, of which a rank has only a part.
WHOLE_MATRIX_OPTIMIZERS = ("muon", "adafactor")


def check_combination(compute: ComputePlan, optimizer: str) -> None:
    """Raises `Failed(unsupported)` that names both fields and the way out."""
    if compute.strategy == "fsdp":
        _check_sharded(compute, optimizer)
    if compute.gradient_compression == "powersgd" and compute.precision == "fp16":
        raise Failed(
            Reason.UNSUPPORTED,
            "compute.gradient_compression powersgd does not work with compute.precision fp16: "
            "one overflow would stay in the errors that it carries on",
            "set compute.precision to bf16 or fp32, or compute.gradient_compression to fp16",
        )


def _check_sharded(compute: ComputePlan, optimizer: str) -> None:
    if compute.precision == "fp16":
        raise Failed(
            Reason.UNSUPPORTED,
            "compute.strategy fsdp does not work with compute.precision fp16: "
            "each rank would judge the overflow of its own part alone",
            "set compute.precision to bf16 or fp32, or compute.strategy to ddp",
        )
    if compute.gradient_compression != "none":
        raise Failed(
            Reason.UNSUPPORTED,
            f"compute.gradient_compression {compute.gradient_compression} is a hook of DDP, "
            "and compute.strategy is fsdp",
            "set compute.gradient_compression to none, or compute.strategy to ddp",
        )
    if optimizer in WHOLE_MATRIX_OPTIMIZERS:
        raise Failed(
            Reason.UNSUPPORTED,
            f"training.optimizer {optimizer} needs whole matrices, and compute.strategy fsdp cuts them up",
            "set training.optimizer.name to adamw, or compute.strategy to ddp",
        )
