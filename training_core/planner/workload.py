"""What a training takes of a device: operations, kept activations, weights and the optimizer's memory."""

from __future__ import annotations

from dataclasses import dataclass

from training_core.planner.network_table import NETWORKS
from training_core.planner.plan import Plan

# Bytes of optimizer state for each parameter, in fp32.
OPTIMIZER_BYTES = {
    "sgd": 4, "rmsprop": 8, "adagrad": 4, "muon": 4, "adafactor": 1, "adam": 8, "adamw": 8, "nadam": 8, "radam": 8,
    "adamax": 8, "adadelta": 8,
}  # fmt: skip
MOST_OPTIMIZER_BYTES = 8


@dataclass(frozen=True)
class Workload:
    """A plan in numbers. `flops` and `kept_bytes` are of one image, `state_bytes` of what does not grow with a batch.

    `state_bytes` are the weights, their gradients and the optimizer's memory, `copies_bytes` the averaged weights and
    the teacher's where there are any.
    `gradient_bytes` are what ranks exchange in a step.
    """

    flops: float
    kept_bytes: float
    input_bytes: int
    parameters: int
    state_bytes: int
    copies_bytes: int
    gradient_bytes: int
    layers: int
    batch_norm: bool


def workload_of(plan: Plan) -> Workload:
    """Scaled by area from the nearest side that was counted. Raises `KeyError` for a network without counts."""
    network = NETWORKS[plan.model]
    side = min(network.at, key=lambda one: abs(one - plan.image_size))
    area = (plan.image_size / side) ** 2
    head = (network.features + 1) * plan.classes
    parameters = network.parameters + head
    trained = head if plan.trainable == "head" else parameters
    optimizer = OPTIMIZER_BYTES.get(plan.optimizer, MOST_OPTIMIZER_BYTES)
    copies = (plan.ema_decay is not None) + (plan.distillation is not None)
    return Workload(
        flops=network.at[side].flops * area,
        kept_bytes=network.at[side].kept_bytes * area,
        input_bytes=plan.image_size**2 * plan.channels * 4,
        parameters=parameters,
        state_bytes=4 * parameters + trained * (4 + optimizer) + network.buffer_bytes,
        copies_bytes=4 * parameters * copies,
        gradient_bytes=4 * trained,
        layers=network.layers,
        batch_norm=network.batch_norm,
    )
