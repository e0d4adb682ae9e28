"""Half precision that the planner chose and that turns out slow on this device: back to fp32, once."""

from __future__ import annotations

import torch

from training_core.engine.precision import Stopwatch, make_scaler
from training_core.engine.training import Training

# A CPU without units for bf16 takes 15 times as long; where half precision pays, it takes less than fp32.
SLOWER = 1.5


def watch(training: Training) -> Stopwatch:
    """Looks at the first steps if half precision was chosen by us, and what fp32 takes is known."""
    compute = training.plan.compute
    chosen = compute.precision != "fp32" and training.plan.reasons.get("compute.precision") != "as requested"
    known = compute.prediction is not None and compute.prediction.fp32_seconds is not None
    return Stopwatch(training.ranks.device, wanted=chosen and known)


def fall_back_if_slow(training: Training, seconds: float) -> None:
    """Compare the time of a step with what fp32 is predicted to take; all ranks go the same way.

    Called on all ranks after the same step.
    """
    prediction = training.plan.compute.prediction
    assert prediction is not None  # noqa: S101  or nobody would have measured
    assert prediction.fp32_seconds is not None  # noqa: S101
    together = training.ranks.sum(torch.tensor([seconds], dtype=torch.float64, device=training.ranks.device))
    mean = float(together) / training.ranks.world_size
    if mean <= SLOWER * prediction.fp32_seconds:
        return
    slow = training.plan.precision
    training.state.precision = "fp32"
    follow_state(training)
    training.reports.alert(
        "slow_precision",
        f"a step in {slow} takes {mean:.3g} s here, where fp32 is predicted to take {prediction.fp32_seconds:.3g} s: "
        "this training goes on in fp32",
        precision=slow,
        step_seconds=mean,
        fp32_seconds=prediction.fp32_seconds,
    )


def follow_state(training: Training) -> None:
    """Compute as the state says, where it has left the plan."""
    precision = training.state.precision
    if precision is None or precision == training.plan.precision:
        return
    training.plan = training.plan.on(training.plan.compute.model_copy(update={"precision": precision}))
    training.scaler = make_scaler(precision, training.ranks.device)
