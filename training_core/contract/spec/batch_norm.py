"""What a batch norm needs of a batch, said before anything is trained. Torch-free.

In training it takes mean and deviation over all values of a channel, and of one value there is no deviation: torch
refuses it. So a forward pass on one image must leave more than one value by channel at the network's last batch norm.
"""

from __future__ import annotations

import math

from training_core.contract.errors import Failed, Reason
from training_core.contract.spec import JobSpec, Resizing

# By how much each network with batch norms has divided a side before the last of them, rounding up.
SIDE_DIVIDED_BY = {
    "small_resnet": 8, "resnet18": 32, "resnet50": 32, "mobilenet_v3_small": 32, "mobilenet_v3_large": 32,
}  # fmt: skip
FIELD = "training.batch_size"


def least_images(model: str, trainable: str, side: int) -> int:
    """Of one forward pass in training, at pictures of `side` pixels: 2 where one is not enough for a batch norm."""
    if trainable == "head" or model not in SIDE_DIVIDED_BY:
        return 1
    return 1 if math.ceil(side / SIDE_DIVIDED_BY[model]) > 1 else 2


def smallest_side(image_size: int, resizing: Resizing | None) -> int:
    """Of the pictures of a training, where they grow."""
    return max(8, int(resizing.start * image_size)) if resizing is not None else image_size


def check_spec(spec: JobSpec) -> None:
    """Raises `Failed(unsupported)` for what the spec alone tells."""
    training = spec.training
    if training.batch_size == "auto" or training.image_size == "auto" or spec.model.name == "auto":
        return
    resizing = training.resizing if isinstance(training.resizing, Resizing) else None
    side = smallest_side(training.image_size, resizing)
    check_share(spec.model.name, spec.model.trainable, side, batch_size=training.batch_size, ranks=1)


def check_share(model: str, trainable: str, side: int, *, batch_size: int, ranks: int) -> None:
    """Raises `Failed(unsupported)` where the emptiest of the ranks has too few images of a batch."""
    least = least_images(model, trainable, side)
    if batch_size // ranks >= least:
        return
    shared = f", shared by {ranks} devices," if ranks > 1 else ""
    raise Failed(
        Reason.UNSUPPORTED,
        f"a batch of {batch_size}{shared} leaves the batch norms of {model} one value to take a deviation of, since "
        f"pictures of {side} px come to 1 x 1 there",
        f"raise training.batch_size to {least * ranks} or more ({16 * ranks} is usual), "
        + ("use fewer devices, " if ranks > 1 else "")
        + "set model.name to small_cnn, which has no batch norm, or raise training.image_size above "
        f"{SIDE_DIVIDED_BY[model]}",
        field=FIELD,
    )
