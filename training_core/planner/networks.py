"""What is counted of a network once, by `python -m benchmarks.engine.model_facts`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class At:
    """Of one image of a certain side: operations of its forward pass, and what autograd keeps of it in fp32."""

    flops: int
    kept_bytes: int


@dataclass(frozen=True)
class Network:
    """`parameters` without the last layer, which turns `features` into classes. `at` is keyed by side in pixels."""

    parameters: int
    features: int
    buffer_bytes: int
    layers: int
    batch_norm: bool
    at: dict[int, At]
