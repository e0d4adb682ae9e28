"""What a job may use, and how it uses it. The planner resolves each `auto`; what is named here is not questioned."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import Field

from training_core.contract.spec.part import Auto, Part, ProfileName

Precision = Literal["auto", "fp32", "bf16", "fp16"]
Strategy = Literal["auto", "single", "ddp", "fsdp"]
Compression = Literal["auto", "none", "fp16", "bf16", "powersgd"]
Count = Annotated[int, Field(ge=1, le=65_536)]


class Compute(Part):
    """`strategy` is one process (`single`), DDP, or FSDP2 over the devices of the profile.

    `micro_batch_size` is the images of one forward pass on one device; a batch that has more is accumulated, and is the
    same batch. `gradient_compression` names the hook through which DDP averages gradients. `start` says whether ranks
    are forked from the host's warm launcher or started by torchrun. `share` is the part of one device, or of one CPU
    slot, that the training takes beside others; `auto` lets the trials of a search share where that is faster.
    """

    profile: ProfileName | Auto = "auto"
    share: Annotated[float, Field(ge=0.05, le=1)] | Auto = "auto"
    precision: Precision = "auto"
    strategy: Strategy = "auto"
    micro_batch_size: Count | Auto = "auto"
    memory_format: Literal["auto", "channels_last", "contiguous"] = "auto"
    compile: bool | Auto = "auto"
    activation_checkpointing: bool | Auto = "auto"
    gradient_compression: Compression = "auto"
    sync_batch_norm: bool | Auto = "auto"
    loader_threads: Annotated[int, Field(ge=1, le=256)] | Auto = "auto"
    start: Literal["auto", "warm", "torchrun"] = "auto"
    max_hours: Annotated[float, Field(gt=0, le=24 * 30)] = 24.0


class Budget(Part):
    """What a job may cost over all its attempts, in the currency of its profile; it ends in a checkpoint."""

    max_cost: Annotated[Decimal, Field(gt=0, le=10**9, decimal_places=4, allow_inf_nan=False)] | None = None
    max_device_hours: Annotated[float, Field(gt=0, le=10**6)] | None = None
