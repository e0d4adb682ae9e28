"""Muon (Jordan et al. 2024) for hidden matrices and filters, AdamW for the rest, in one optimizer.

torch.optim.Muon refuses filters, which are all that a convolutional network hides, and computes in bf16, which many
CPUs do many times slower than fp32.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.optim.adamw import adamw

# Jordan's coefficients: the steepest slope at zero; singular values end between about 0.7 and 1.2.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
EPSILON = 1e-7
# So that a step moves a weight as far as AdamW's does, and one learning rate suits both (Liu et al. 2025, section 2.2).
RMS_OF_ADAMW = 0.2


class Muon(torch.optim.Optimizer):
    """Groups with `orthogonal` move by orthogonalised momentum (`momentum`), the others as AdamW does (`betas`, `eps`).

    A filter `(outputs, inputs, height, width)` is taken as the matrix `(outputs, inputs * height * width)`.
    """

    def __init__(self, groups: list[dict[str, Any]], *, lr: float, momentum: float, betas: tuple[float, float]) -> None:
        defaults = {"lr": lr, "momentum": momentum, "betas": betas, "eps": 1e-8, "weight_decay": 0.0}
        super().__init__(groups, {**defaults, "orthogonal": False})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # noqa: ARG002  nobody here has one
        for group in self.param_groups:
            moving = [one for one in group["params"] if one.grad is not None]
            if group["orthogonal"]:
                for parameter in moving:
                    self._move(parameter, group)
            elif moving:
                self._adamw(moving, group)

    def _move(self, parameter: torch.Tensor, group: dict[str, Any]) -> None:
        gradient, state, momentum = parameter.grad, self.state[parameter], group["momentum"]
        assert gradient is not None  # noqa: S101  the caller looked
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        buffer = state["momentum_buffer"].lerp_(gradient, 1 - momentum)
        direction = orthogonalised(gradient.lerp(buffer, momentum).flatten(1))
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        scale = RMS_OF_ADAMW * math.sqrt(max(direction.shape))
        parameter.add_(direction.view(parameter.shape), alpha=-group["lr"] * scale)

    def _adamw(self, parameters: list[torch.Tensor], group: dict[str, Any]) -> None:
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter] = {
                    "step": torch.zeros((), device=parameter.device),
                    "exp_avg": torch.zeros_like(parameter),
                    "exp_avg_sq": torch.zeros_like(parameter),
                }
        states = [self.state[parameter] for parameter in parameters]
        adamw(
            parameters,
            [one.grad for one in parameters if one.grad is not None],
            [one["exp_avg"] for one in states],
            [one["exp_avg_sq"] for one in states],
            [],
            [one["step"] for one in states],
            fused=True,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )


def orthogonalised(matrix: torch.Tensor) -> torch.Tensor:
    """The orthogonal matrix nearest to `matrix` `(rows, columns)`, roughly, by five Newton-Schulz iterations."""
    wide = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    wide = wide.bfloat16() if wide.is_cuda else wide.float()
    wide = wide / wide.norm().clamp(min=EPSILON)
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        gram = wide @ wide.T
        wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    result = wide.T if matrix.shape[0] > matrix.shape[1] else wide
    return result.to(matrix.dtype).contiguous()
