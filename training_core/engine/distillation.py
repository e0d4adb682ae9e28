"""Learning from a trained model too (Hinton, Vinyals & Dean 2015): its softened answers beside the labels."""

from __future__ import annotations

import torch
from torch.nn import functional

from training_core.checkpoints import checkpoint
from training_core.checkpoints.manifest import Damaged
from training_core.checkpoints.references import place_of
from training_core.contract.run_dir import RunSpec
from training_core.engine.precision import autocast
from training_core.engine.teacher import FIELD, check_fit, damaged_teacher, no_teacher
from training_core.planner.plan import Plan
from training_core.storage.store import open_store
from training_core.vision.data_loaders import Statistics
from training_core.vision.network_of_card import Trained, rebuild


class Teacher:
    """A frozen network that is shown what the student sees, in the teacher's own normalisation and size.

    The other normalisation is an exact affine map of each channel. An image of another side than the teacher's own
    (a student that grows its images, or another `image_size`) is resized to it, bilinear and antialiased as all images
    are. MixUp and CutMix are seen too: a good teacher answers for the very picture (Beyer et al. 2022).
    """

    def __init__(
        self, trained: Trained, student: Statistics, classes: list[str], precision: str, device: torch.device
    ) -> None:
        network = trained.network.eval().requires_grad_(False)
        self._network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._precision, self._device = precision, device
        seen = trained.preprocessing
        self._side = seen.image_size
        values = torch.tensor([student.mean, student.deviation, seen.mean, seen.standard_deviation], device=device)
        given_mean, given_deviation, mean, deviation = values[:, None, :, None, None]
        self._scale, self._shift = given_deviation / deviation, (given_mean - mean) / deviation
        self._order = torch.tensor([trained.classes.index(name) for name in classes], device=device)

    @torch.no_grad()
    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """`(batch, classes) float32` in the student's order, for images normalised for the student."""
        images = torch.addcmul(self._shift, images, self._scale)
        if images.shape[2:] != (self._side, self._side):
            images = functional.interpolate(images, (self._side, self._side), mode="bilinear", antialias=True)
        with autocast(self._precision, self._device):
            logits: torch.Tensor = self._network(images)
        return logits.float()[:, self._order]


def soft_loss_sum(logits: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """T^2 KL(teacher || student) at temperature T, summed over images: Hinton's soft targets, less a constant."""
    student = functional.log_softmax(logits.float() / temperature, dim=1)
    wanted = functional.log_softmax(teacher / temperature, dim=1)
    return temperature**2 * functional.kl_div(student, wanted, reduction="sum", log_target=True)


def read_teacher(
    run: RunSpec, plan: Plan, classes: list[str], student: Statistics, device: torch.device
) -> Teacher | None:
    """The teacher of the plan, ready to answer; None without one.

    Raises `Failed(weights_unavailable)` for no checkpoint, `Failed(checkpoint_invalid)` for one that is damaged or does
    not fit its own description, and what `teacher.check_fit` raises.
    """
    if plan.distillation is None:
        return None
    reference = plan.distillation.teacher
    try:
        tensors, about = checkpoint.read_model(open_store(run), place_of(run, reference, FIELD))
    except FileNotFoundError as problem:
        raise no_teacher(reference) from problem
    except Damaged as problem:
        raise damaged_teacher(reference, problem) from problem
    check_fit(about, classes, plan.channels)
    return Teacher(rebuild(tensors, about, f"{FIELD}: {reference}"), student, classes, plan.precision, device)
