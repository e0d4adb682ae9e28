"""What the planner decides: how a training is computed, why, and what it is expected to take."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

ResolvedStrategy = Literal["single", "ddp", "fsdp"]
ResolvedPrecision = Literal["fp32", "bf16", "fp16"]
MemoryFormat = Literal["channels_last", "contiguous"]
ResolvedCompression = Literal["none", "fp16", "bf16", "powersgd"]


class Prediction(BaseModel):
    """Of one optimizer step and of the whole training on the devices it holds.

    `step_seconds` is bounded by the slower of `compute_seconds` (forward, backward and optimizer, with what is exposed
    of the communication) and `data_seconds`. `hours` hold evaluations and start too. `basis` says what it rests on:
    probes on this device, or published figures.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    step_seconds: float
    compute_seconds: float
    data_seconds: float
    communication_seconds: float = 0.0
    images_per_second: float
    memory_bytes: int = Field(description="of one device at its highest")
    memory_limit_bytes: int
    hours: float
    device_hours: float
    fp32_seconds: float | None = Field(default=None, description="`compute_seconds` in fp32, where half is chosen")
    one_process_seconds: float | None = Field(
        default=None, description="`compute_seconds` in one process, where several ranks share the cores of a CPU"
    )
    basis: Literal["probes", "published", "none"] = "none"


class ComputePlan(BaseModel):
    """`ranks` processes of `threads` CPU threads each share every batch, in pieces of `micro_batch_size` images.

    `micro_batch_size` 0 stands for a rank's whole share, `threads` 0 for its share of the cores allowed.
    `loader_threads` 0 begins with one and grows by need. `epochs` are fewer than the recipe's where time is short.
    `host` names what it was made for: on the like, a resumed training is computed the same way. Each of `warnings` is a
    code, a colon and a sentence.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    strategy: ResolvedStrategy = "single"
    ranks: int = Field(default=1, ge=1)
    threads: int = Field(default=0, ge=0)
    precision: ResolvedPrecision = "fp32"
    memory_format: MemoryFormat = "channels_last"
    micro_batch_size: int = Field(default=0, ge=0)
    compile: bool = False
    activation_checkpointing: bool = False
    gradient_compression: ResolvedCompression = "none"
    sync_batch_norm: bool = False
    loader_threads: int = Field(default=0, ge=0)
    epochs: int | None = Field(default=None, ge=1)
    reasons: dict[str, str] = Field(default_factory=dict)
    warnings: list[str] = Field(default_factory=list)
    prediction: Prediction | None = None
    probe_seconds: float = 0.0
    host: str = ""

    def share(self, batch_size: int) -> int:
        """Images of a batch that the fullest rank takes."""
        return -(-batch_size // self.ranks)

    def accumulation_steps(self, batch_size: int) -> int:
        """Forward passes of a rank for one optimizer step."""
        share = self.share(batch_size)
        return -(-share // min(share, self.micro_batch_size or share))
