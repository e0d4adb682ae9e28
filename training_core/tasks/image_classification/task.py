"""Image classification: softmax cross entropy, and the share of images whose most likely class is right."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from training_core.planner.plan import Plan
from training_core.vision.networks import make_model, remember_less

METRICS = ("loss", "accuracy")


def build(plan: Plan) -> nn.Module:
    """The network of the plan, initialised from its seed alone."""
    # As `torch.manual_seed`, which reads source files to note its caller for devices that nothing is made on.
    torch.default_generator.manual_seed(plan.seed)
    network = make_model(plan.model, channels=plan.channels, classes=plan.classes)
    remember_less(network, plan.total_steps)
    return network


def loss_sum(logits: torch.Tensor, labels: torch.Tensor, label_smoothing: float = 0.0) -> torch.Tensor:
    """Summed, so that parts of a batch add up exactly. `logits` `(batch, classes)`, computed in fp32."""
    return functional.cross_entropy(logits.float(), labels, reduction="sum", label_smoothing=label_smoothing)


def evaluation_sums(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """`(3,) float64`: summed loss, correct images, images. Sums over batches and ranks give the metrics."""
    losses = functional.cross_entropy(logits.float(), labels, reduction="none").double()
    correct = (logits.argmax(dim=1) == labels).sum().double()
    return torch.stack(
        [losses.sum(), correct, torch.tensor(float(len(labels)), dtype=torch.float64, device=losses.device)]
    )


def metrics_of(sums: torch.Tensor) -> dict[str, float]:
    loss, correct, images = sums.tolist()
    return {"loss": loss / images, "accuracy": correct / images}
